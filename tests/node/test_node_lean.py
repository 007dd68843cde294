"""What a node's start leaves out: every module here was once part of it, or would be by one careless import,
and would cost each start its milliseconds.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.processes import process, surroundings_of

WITH_REPORT = """
import atexit, gc, json, sys

def report():
    print("at exit:", json.dumps({"modules": sorted(sys.modules), "frozen": gc.get_freeze_count()}))

atexit.register(report)
from meshnode.cli import main
main()
"""

# Of libraries that are installed with meshnode, or beside it while it is tested, and of the standard library.
LIBRARIES = {
    "asyncio",
    "cattrs",
    "cel",
    "click",
    "concurrent.futures",
    "cryptography",
    "decimal",
    "difflib",
    "google.protobuf",
    "grpc",
    "grpclib.client",
    "grpclib.server",
    "jsonschema",
    "multiprocessing",
    "pydantic",
    "pydantic_core",
    "redis",
    "rich",
    "rich_click",
    "trio.testing",
    "trio_asyncio",
    "yaml",
    "zeroconf",
}
# Our own: reading of resources, what only commands need, pluggable components, other drivers, and the codec
# of any message.
OURS = {
    "meshnode.cli._app",
    "meshnode.config._scalars",
    "meshnode.config._shapes",
    "meshnode.config._yaml",
    "meshnode.config.componentfile",
    "meshnode.config.configurationfile",
    "meshnode.config.loader",
    "meshnode.config.resiliency",
    "meshnode.config.resiliencyfile",
    "meshnode.config.schema",
    "meshnode.config.sections",
    "meshnode.config.subscriptionfile",
    "meshnode.pluggable",
    "meshnode.quickstarts",
    "meshnode.testing",
    "meshnode_nameresolution_hosts",
    "meshnode_nameresolution_mdns",
    "meshnode_secretstores_local",
    "meshnode_state_in_memory",
    "meshnode_redis",
}

COMPONENT = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: state.in-memory, version: v1}
"""


def report_of_a_start(home: Path, *flags: str) -> dict[str, object]:
    """What a node has imported from its start until its end, and how much the collector leaves alone."""
    command = [sys.executable, "-c", WITH_REPORT, "node", "--app-id", "lean", "--dapr-grpc-port", "0", *flags]
    with process(command, env=surroundings_of(home)) as running:
        running.wait_for("API on ")
        assert running.end() == 0, running.output
        line = running.lines[running.wait_for("at exit: ")]
    report: dict[str, object] = json.loads(line.removeprefix("at exit: "))
    return report


def modules(report: dict[str, object]) -> set[str]:
    found = report["modules"]
    assert isinstance(found, list)
    return set(found)


def test_a_node_without_resources_imports_what_it_uses(tmp_path: Path) -> None:
    report = report_of_a_start(tmp_path)
    loaded = modules(report)
    assert {"trio", "meshnode.node", "meshnode_state_sqlite", "meshnode_nameresolution_sqlite"} <= loaded
    assert not loaded & (LIBRARIES | OURS)
    assert not [name for name in loaded if "._codec_" in name]
    # Everything that start-up made: at the least the objects of all these modules.
    assert isinstance(report["frozen"], int)
    assert report["frozen"] > 10_000


def test_a_component_brings_its_driver_and_the_reading_of_yaml(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(COMPONENT)
    loaded = modules(report_of_a_start(tmp_path, "--resources-path", str(tmp_path / "store.yaml")))
    needed = {"yaml", "meshnode.config._scalars", "meshnode.config._shapes", "meshnode.config._yaml"}
    needed |= {"meshnode.config.componentfile", "meshnode.config.loader", "meshnode_state_in_memory"}
    assert needed <= loaded
    watching = {"multiprocessing"}  # what looks after the files brings it, in a thread, after the start
    assert not loaded & ((LIBRARIES | OURS) - needed - watching)
    assert "meshnode_state_sqlite" not in loaded


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_is_left_out_exists(name: str) -> None:
    """A module that was renamed would never be found loaded."""
    assert find_spec(name) is not None
