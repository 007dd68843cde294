"""Drivers: found without being imported, a broken one disturbing nobody but those who name it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import frozen
from jsonschema import Draft7Validator

from meshnode.config import Source
from meshnode.config.loader import load_text
from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import Driver, DriverContext, free_form, option
from meshnode.registry import Entry, Registry, describe, driver_schema, load_options

SOURCE = Source("c.yaml", 3)


@frozen
class Options:
    host: str = option("host", "Where it is.")
    port: int = option("port", "Its port.", default=6379)
    mode: str = option("mode", "How it is used.", default="single", allowed=("single", "cluster"))
    password: str | None = option("password", "Its password.", default=None, secret=True, aliases=("pass",))
    wait: timedelta = option("wait", "How long to wait.", default=timedelta(seconds=90))
    tls: bool = option("enableTLS", "Whether to encrypt.", default=False)


@asynccontextmanager
async def _open(options: Any, context: DriverContext) -> AsyncIterator[None]:
    yield None


def make(type: str, *versions: str) -> Driver[Any]:  # noqa: A002
    return Driver(type=type, metadata=Options, open=_open, summary="For tests.", versions=versions or ("v1",))


old, new = make("state.test"), make("state.test")
not_a_driver = object()


def point(name: str, value: str) -> Entry:
    type_name, _, version = name.partition("/")
    entry_point = EntryPoint(name, value, "meshnode.state")
    vars(entry_point).update(dist=SimpleNamespace(name="meshnode-driver-test", version="1.0"))
    return Entry("state", type_name, version or None, entry_point)


BROKEN = point("state.broken", "meshnode_no_such_module:driver")
WRONG = point("state.wrong", "test_registry:not_a_driver")


@pytest.fixture
def registry() -> Registry:
    entries = [
        BROKEN,
        WRONG,
        point("state.test", "test_registry:old"),
        point("state.test/v2", "test_registry:new"),
    ]
    return Registry(entries, [make("pubsub.memory", "v1", "v1alpha1")])


def complaint(registry: Registry, type: str, version: str = "v1") -> Problem:  # noqa: A002
    with pytest.raises(ConfigError) as caught:
        registry.driver(type, version, SOURCE)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("c.yaml", 3)
    return problem


def test_drivers_by_type_and_version(registry: Registry) -> None:
    assert registry.driver("state.test") is old
    assert registry.driver("state.test", "v2") is new
    assert registry.driver("state.test/v2") is new
    assert registry.driver("State.TEST", "V1") is old
    assert registry.driver("pubsub.memory", "v1alpha1").type == "pubsub.memory"
    assert registry.types() == ("pubsub.memory", "state.broken", "state.test", "state.wrong")
    assert registry.types("state") == ("state.broken", "state.test", "state.wrong")


def test_given_drivers_win(registry: Registry) -> None:
    mine = make("state.test")
    again = Registry(registry.entries, [mine])
    assert again.driver("state.test") is mine
    assert again.driver("state.test", "v2") is new


@pytest.mark.parametrize(
    ("wanted", "field", "message", "remedy"),
    [
        ("state.tset", "spec.type", 'unknown component type "state.tset"', 'did you mean "state.test"?'),
        ("stat.test", "spec.type", 'unknown component type "stat.test"', 'did you mean "state.test"?'),
        ("stte.zzzzzzzz", "spec.type", 'unknown component type "stte.zzzzzzzz"', 'did you mean "state"?'),
        ("state.cassandra", "spec.type", 'unknown component type "state.cassandra"', "allowed: state.broken"),
        (
            "lock.etcd3",
            "spec.type",
            'unknown component type "lock.etcd3"',
            "",
        ),
        (
            "state.redis",
            "spec.type",
            'the driver of "state.redis" is not installed',
            "pip install 'meshnode[redis]'",
        ),
        (
            "nameresolution.mdns",
            "spec.type",
            'the driver of "nameresolution.mdns" is not installed',
            "meshnode[mdns]",
        ),
    ],
)
def test_types_that_are_not_there(
    registry: Registry, wanted: str, field: str, message: str, remedy: str
) -> None:
    problem = complaint(registry, wanted)
    assert (problem.field, problem.message) == (field, message)
    assert remedy in problem.remedy


def test_kinds_that_may_be_pluggable_name_the_folder_of_sockets() -> None:
    registry = Registry([], [make("state.test")], "/sockets")
    assert complaint(registry, "state.tset").message == (
        'unknown component type "state.tset", and no socket in /sockets serves it'
    )
    assert complaint(registry, "lock.tset").message == 'unknown component type "lock.tset"'


def test_problems_stand_where_the_type_was_written(registry: Registry) -> None:
    head = "apiVersion: dapr.io/v1alpha1\nkind: %s\nmetadata: {name: x}\nspec:\n"
    text = head % "Component" + "  version: v9\n  type: state.%s\n"
    for name, line, field in (("tset", 6, "spec.type"), ("test", 5, "spec.version")):
        (component,) = load_text(text % name, "c.yaml").components
        with pytest.raises(ConfigError) as caught:
            registry.driver(component.type, component.version, component.source)
        (problem,) = caught.value.problems
        assert (problem.line, problem.field) == (line, field)
    text = (
        head % "Configuration"
        + "  nameResolution:\n    configuration:\n      hots: a\n    component: hosts\n"
    )
    naming = load_text(text, "c.yaml").configurations[0].name_resolution
    assert naming is not None
    with pytest.raises(ConfigError) as caught:
        registry.driver(f"nameresolution.{naming.component}", naming.version, naming.source)
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (8, "spec.nameResolution.component")
    with pytest.raises(ConfigError) as caught:
        load_options(Options, naming.configuration, naming.source)
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (7, "spec.nameResolution.configuration.hots")


def test_a_version_that_is_not_there(registry: Registry) -> None:
    problem = complaint(registry, "state.test", "v3")
    assert (problem.field, problem.message) == ("spec.version", '"state.test" has no version "v3"')
    assert "allowed: v1, v2" in problem.remedy


def test_a_broken_driver_is_its_own_problem(registry: Registry) -> None:
    problem = complaint(registry, "state.broken")
    assert (
        "cannot be imported: ModuleNotFoundError: No module named 'meshnode_no_such_module'"
        in problem.message
    )
    assert problem.remedy == "pip install --force-reinstall meshnode-driver-test"
    assert "is not a meshnode driver" in complaint(registry, "state.wrong").message
    assert registry.driver("state.test") is old


def test_discovery_imports_no_driver(tmp_path: Path) -> None:
    """Listing finds a driver whose module would raise, and the module is not touched."""
    info = tmp_path / "meshnode_driver_explosive-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: meshnode-driver-explosive\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[meshnode.lock]\nlock.explosive = meshnode_explosive:driver\n")
    (tmp_path / "meshnode_explosive.py").write_text("raise RuntimeError('imported')\n")
    code = (
        "import sys; from meshnode.registry import Registry; from meshnode.errors import ConfigError\n"
        "found = Registry.discover()\n"
        "assert 'lock.explosive' in found.types('lock') and 'state.in-memory' in found.types('state')\n"
        "assert not [name for name in sys.modules if name.startswith('meshnode_')]\n"
        "try: found.driver('lock.explosive')\n"
        "except ConfigError as error: assert 'RuntimeError: imported' in str(error)\n"
        "else: raise AssertionError\n"
        "assert found.driver('state.in-memory').type == 'state.in-memory'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(tmp_path)})


def test_describe() -> None:
    rows = {row.name: row for row in describe(old)}
    assert list(rows) == ["host", "port", "mode", "password", "wait", "enableTLS"]
    assert (rows["host"].required, rows["host"].type, rows["host"].doc) == (True, "text", "Where it is.")
    assert [rows[name].default for name in ("port", "mode", "wait", "enableTLS")] == [
        "6379",
        "single",
        "1m30s",
        "false",
    ]
    assert [rows[name].type for name in ("port", "wait", "enableTLS")] == ["int", "duration", "bool"]
    assert rows["mode"].allowed == ("single", "cluster")
    assert (rows["password"].secret, rows["password"].aliases, rows["password"].default) == (
        True,
        ("pass",),
        "",
    )


def component(*items: tuple[str, Any], version: str = "v1") -> dict[str, Any]:
    metadata = [{"name": name, "value": value} for name, value in items]
    spec = {"type": "state.test", "version": version, "metadata": metadata}
    return {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "x"}, "spec": spec}


def test_schema_of_a_driver() -> None:
    schema = driver_schema(old)
    Draft7Validator.check_schema(schema)
    validator = Draft7Validator(schema)
    validator.validate(
        component(("host", "a"), ("port", 1), ("enableTLS", True), ("pass", "x"), ("mode", "cluster"))
    )
    for wrong in (
        component(),
        component(("host", "a"), ("prot", 1)),
        component(("host", "a"), ("mode", "many")),
        component(("host", "a"), ("enableTLS", "perhaps")),
        component(("host", "a"), version="v2"),
    ):
        assert not validator.is_valid(wrong)
    prefixed = component(("host", "a"), ("keyPrefix", "none"))
    assert not validator.is_valid(prefixed)
    Draft7Validator(driver_schema(old, reserved=["keyPrefix"])).validate(prefixed)


@frozen
class Open:
    host: str = option("host", "Where it is.")
    others: Any = free_form("Passed on.")


def test_schema_of_a_driver_that_takes_any_name() -> None:
    schema = driver_schema(Driver(type="state.test", metadata=Open, open=_open))
    Draft7Validator.check_schema(schema)
    validator = Draft7Validator(schema)
    validator.validate(component(("host", "a"), ("anything", "goes")))
    assert not validator.is_valid(component(("anything", "goes")))


def test_every_installed_driver_can_be_described() -> None:
    """Those of this repository: imported, with documented options and a valid schema."""
    registry = Registry.discover()
    for entry in registry.entries:
        if entry.distribution.startswith("meshnode-driver-"):
            driver = registry.load(entry)
            assert driver.type == entry.type
            assert driver.summary
            assert all(row.doc for row in describe(driver))
            Draft7Validator.check_schema(driver_schema(driver))
