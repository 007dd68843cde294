"""How a node process starts, or says why it does not: mistakes in resources, ports that are taken, stores
that cannot be reached.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import node, process, surroundings_of


def run_to_end(
    home: Path, *flags: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A node that is expected to end by itself."""
    command = [sys.executable, "-m", "meshnode", "node", "--app-id", "app", "--dapr-grpc-port", "0", *flags]
    surroundings = {**os.environ, **surroundings_of(home), **(env or {})}
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=60, check=False)


def written(home: Path, **files: str) -> Path:
    """A folder of resources; names without their suffix."""
    folder = home / "resources"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def component(name: str, kind: str, *items: str, extra: str = "") -> str:
    lines = "".join(f"\n  - {item}" for item in items)
    metadata = f"\n  metadata:{lines}" if items else ""
    return f"""apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: {name}
spec:
  type: {kind}
  version: v1{metadata}
{extra}"""


REFERRING = """apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: other}
spec:
  policies:
    retries: {often: {policy: constant, duration: 1s, maxRetries: 3}}
  targets:
    components:
      two: {outbound: {retry: oftn}}
"""


def test_a_policy_that_is_nowhere(tmp_path: Path) -> None:
    ended = run_to_end(tmp_path, "--resources-path", str(written(tmp_path, h=REFERRING)))
    assert ended.returncode == 2
    [line, *_] = ended.stderr.splitlines()
    assert "h.yaml:9: spec.targets.components.two.outbound.retry: " in line
    assert 'did you mean "often"' in line


def test_every_mistake_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        a=component("one", "state.rediss"),
        b=component("two", "state.sqlite", "{name: tableNam, value: x}", "{name: timeout, value: soon}"),
        c=component("three", "state.in-memory") + "  initTimeot: 3s\n",
        d=component("two", "state.in-memory"),
        e="""apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    timeouts: {short: 5 parsecs}
    circuitBreakers:
      cb: {maxRequests: 1, timeout: 5s, trip: consecutiveFailure >= 5}
""",
        h=REFERRING,  # whether what it refers to is there cannot be known: that may be in e
        f="apiVersion: dapr.io/v1alpha1\nkind: Componet\nmetadata: {name: x}\n",
        g="kind: [unclosed\n",
    )
    ended = run_to_end(tmp_path, "--resources-path", str(folder))
    assert ended.returncode == 2
    assert "API on" not in ended.stdout
    problems = [line for line in ended.stderr.splitlines() if line.startswith("meshnode node: ")]
    for file, words in {
        "a.yaml:6": 'did you mean "state.redis"',
        "b.yaml:9": "tableNam",
        "b.yaml:10": "soon",
        "c.yaml:8": "initTimeot",
        "d.yaml": "two",
        "e.yaml:6": "5 parsecs",
        "e.yaml:8": "consecutiveFailure",
        "f.yaml:2": "Componet",
        "g.yaml": "",
    }.items():
        found = [line for line in problems if f"{file}:" in line and words in line]
        assert found, f"{file} {words!r} is not among:\n{ended.stderr}"
    assert "h.yaml" not in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


def test_a_component_s_secrets_and_references_count_too(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        store=component(
            "store",
            "state.redis",
            "{name: redisHost, envRef: NO_SUCH_HOST}",
            "{name: redisPassword, secretKeyRef: {name: NO_SUCH_SECRET, key: NO_SUCH_SECRET}}",
            extra="auth: {secretStore: secrets}\n",
        ),
        secrets=component("secrets", "secretstores.local.env"),
    )
    ended = run_to_end(tmp_path, "--resources-path", str(folder))
    assert ended.returncode == 2
    assert re.search(r"store\.yaml:9: .*NO_SUCH_HOST is not set", ended.stderr)
    assert re.search(r'store\.yaml:10: .*no secret "NO_SUCH_SECRET"', ended.stderr)
    assert "API on" not in ended.stdout


def test_lenient_only_warns_of_unknown_fields(tmp_path: Path) -> None:
    folder = written(tmp_path, c=component("statestore", "state.in-memory") + "  initTimeot: 3s\n")
    with node("app", tmp_path, "--lenient", "--resources-path", str(folder)) as running:
        running.process.wait_for("initTimeot")
        [line] = [line for line in running.process.lines if "initTimeot" in line]
        assert "level=warning" in line
    folder = tmp_path / "resources"
    (folder / "d.yaml").write_text(component("other", "state.nothing"))
    assert run_to_end(tmp_path, "--lenient", "--resources-path", str(folder)).returncode == 2


def test_an_http_endpoint_is_refused_with_a_way_out(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        e="""apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: api}
spec: {baseUrl: "https://example.com"}
""",
    )
    ended = run_to_end(tmp_path, "--resources-path", str(folder))
    assert ended.returncode == 2
    assert re.search(r"e\.yaml:\d+: HTTPEndpoint api: meshnode speaks gRPC only", ended.stderr)
    assert "remove it" in ended.stderr


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    ended = run_to_end(tmp_path, "--resources-path", str(tmp_path / "nowhere"))
    assert ended.returncode == 2
    assert "nowhere" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("which", ["--dapr-grpc-port", "--dapr-internal-grpc-port"])
def test_a_port_that_is_taken(tmp_path: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run_to_end(tmp_path, which, port)
    assert ended.returncode == 1
    [line, *hints] = ended.stderr.splitlines()
    assert line.startswith("meshnode node: ")
    assert port in line
    assert "in use" in line
    assert hints
    assert all(which in hint for hint in hints)
    assert "Traceback" not in ended.stderr


def test_a_store_that_cannot_be_reached_keeps_the_node_from_starting(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
    store = component(
        "store", "state.redis", f'{{name: redisHost, value: "{host}"}}', "{name: redisMaxRetries, value: 0}"
    )
    folder = written(tmp_path, store=store)
    ended = run_to_end(tmp_path, "--resources-path", str(folder))
    assert ended.returncode == 1
    assert "error initializing component store (state.redis/v1)" in ended.stderr
    assert "API on" not in ended.stdout
    assert "Traceback" not in ended.stderr
    (folder / "store.yaml").write_text(store + "  ignoreErrors: true\n")
    with node("app", tmp_path, "--resources-path", str(folder)) as running:
        running.process.wait_for("going on without it, as ignoreErrors asks")


def test_the_embedded_components_are_said_to_be_in_use(tmp_path: Path) -> None:
    with node("app", tmp_path) as running:
        running.process.wait_for("'statestore' is an embedded state.sqlite in")
        running.process.wait_for("'pubsub' is an embedded pubsub.sqlite in")
        running.process.wait_for("'lockstore' is an embedded lock.sqlite in")


def test_logs_as_json_are_json_to_the_last_line(tmp_path: Path) -> None:
    with node("app", tmp_path, "--log-as-json") as running:
        assert running.process.end() == 0
        lines = [json.loads(line) for line in running.process.lines]
    assert {line["app_id"] for line in lines} == {"app"}
    assert {line["level"] for line in lines} == {"info"}
    assert lines[-1]["msg"].startswith("Shutdown complete: 0 requests served")


def test_a_node_waits_for_its_application_and_says_when_it_is_there(tmp_path: Path) -> None:
    with socket.socket() as later:
        later.bind(("127.0.0.1", 0))
        port = later.getsockname()[1]
    with node("app", tmp_path, app_port=port) as running:
        running.process.wait_for(f"Waiting for the application on 127.0.0.1:{port}")
        from support.grpc_apps import blob_app

        with blob_app(lambda request, context: request, port=port):
            running.process.wait_for(f"Application discovered on 127.0.0.1:{port}")


def test_the_module_and_the_script_are_the_same(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("meshnode")
    command = [str(script), "node", "--app-id", "app", "--dapr-grpc-port", "0"]
    with process(command, env=surroundings_of(tmp_path)) as running:
        running.wait_for("API on 127.0.0.1:")
        assert running.end() == 0
