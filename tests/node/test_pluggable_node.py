"""Whole nodes with pluggable components, used through Dapr's unmodified Python SDK. The component is written
with Dapr's SDK for Go; it is killed and brought back.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.components import go_component, socket_folder
from support.processes import Node, Process, healthz, node, process, surroundings_of, wait_until
from support.redis_servers import free_port

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec:
  type: state.gomem
  version: v1
  metadata:
    - {name: token, secretKeyRef: {name: token, key: token}}
    - {name: anything, value: goes}
auth: {secretStore: secrets}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: secrets}
spec: {type: secretstores.gosecrets, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec: {type: pubsub.gomem, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: tick}
spec: {type: bindings.gomem, version: v1}
"""
SDK_DEPRECATES = pytest.mark.filterwarnings("ignore:.* deprecated. :DeprecationWarning")


@pytest.fixture
def folder() -> Iterator[Path]:
    with socket_folder() as path:
        yield path


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Any]]:
    with healthz() as port:
        from dapr.clients import DaprClient
        from dapr.conf import settings

        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", port)
        yield DaprClient


def variables(folder: Path) -> dict[str, str]:
    return {"DAPR_COMPONENTS_SOCKETS_FOLDER": str(folder)}


def events_of(app: Process, handler: str) -> list[Any]:
    seen = [json.loads(line) for line in app.lines if line.startswith("{")]
    return [event["data"] for event in seen if event["handler"] == handler]


def come(app: Process, handler: str, data: Any) -> None:
    wait_until(lambda: data in events_of(app, handler), what=f"{data} for {handler}")


@SDK_DEPRECATES
def test_state_secrets_events_and_bindings(folder: Path, client: Any, tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as stack:
        component = stack.enter_context(go_component(folder))
        script = str(Path(__file__).parent / "events_app.py")
        app = stack.enter_context(process([sys.executable, script, str(port)]))
        app.wait_for("listening")
        running = stack.enter_context(
            node("app", tmp_path, resources=RESOURCES, app_port=port, env=variables(folder))
        )
        running.process.wait_for("app is subscribed")
        sdk = stack.enter_context(client(address=running.address))
        uses_everything(sdk, app)
        component.end(signal.SIGKILL)
        with pytest.raises(grpc.RpcError) as caught:
            sdk.get_state("statestore", "k")
        assert caught.value.code() is grpc.StatusCode.INTERNAL  # as of any store that is away
        assert "is away" in caught.value.details()
        stack.enter_context(go_component(folder))
        comes_back(sdk, app, running)


def uses_everything(sdk: Any, app: Process) -> None:
    sdk.save_state("statestore", "k", "value")
    first = sdk.get_state("statestore", "k")
    assert first.data == b"value"
    sdk.save_state("statestore", "k", "newer", etag=first.etag)
    with pytest.raises(grpc.RpcError) as caught:
        sdk.save_state("statestore", "k", "stale", etag=first.etag)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert [item.data for item in sdk.get_bulk_state("statestore", ["k", "none"]).items] == [b"newer", b""]
    assert sdk.get_secret("secrets", "database").secret == {"user": "ann", "password": "topsecret"}
    loaded = {one.name: one for one in sdk.get_metadata().registered_components}
    assert loaded["statestore"].type == "state.gomem"
    assert set(loaded["statestore"].capabilities) == {"ETAG", "TRANSACTIONAL", "TTL"}
    sdk.publish_event("pubsub", "plain", json.dumps({"n": 1}), data_content_type="application/json")
    come(app, "plain", {"n": 1})
    sdk.invoke_binding("tick", "create", "first")
    come(app, "tick", "first")


def comes_back(sdk: Any, app: Process, running: Node) -> None:
    """Every component is initialised again; the subscription and the input binding go on."""
    for name in ("statestore", "secrets", "pubsub", "tick"):
        running.process.wait_for(f"component {name}: its process")
    sdk.save_state("statestore", "k", "after")
    assert sdk.get_state("statestore", "k").data == b"after"
    assert sdk.get_secret("secrets", "token").secret == {"token": "opensesame"}
    sdk.publish_event("pubsub", "plain", json.dumps({"n": 2}), data_content_type="application/json")
    come(app, "plain", {"n": 2})
    sdk.invoke_binding("tick", "create", "second")
    come(app, "tick", "second")


def meshnode(*args: str, home: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **surroundings_of(home), **variables(folder)}
    command = [sys.executable, "-m", "meshnode", *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_type_that_nobody_serves_ends_the_start(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "resources.yaml"
    file.write_text(RESOURCES)
    ended = meshnode("node", "--app-id", "a", "--resources-path", str(file), home=tmp_path, folder=folder)
    assert ended.returncode == 2
    for name in ("state.gomem", "pubsub.gomem", "bindings.gomem", "secretstores.gosecrets"):
        assert f'unknown component type "{name}", and no socket in {folder} serves it' in ended.stderr


def test_sockets_that_are_none_keep_no_node_from_starting(folder: Path, tmp_path: Path) -> None:
    silent, stale = folder / "silent.sock", folder / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(stale))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(silent))
        listener.listen()
        with node("app", tmp_path, env=variables(folder)) as running:
            for path, words in ((silent, "no answer within"), (stale, "refused")):
                line = running.process.lines[running.process.wait_for(f"no pluggable component at {path}")]
                assert "level=warning" in line
                assert words in line


def test_check_knows_what_is_served(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "resources.yaml"
    file.write_text(RESOURCES)
    with go_component(folder):
        ended = meshnode("components", "check", str(file), home=tmp_path, folder=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 resources, nothing wrong" in ended.stderr


SERVED = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec:
  type: state.shared
  version: v1
  metadata: [{name: connectionString, value: "%s"}]
"""


@SDK_DEPRECATES
def test_an_installed_driver_served_to_a_node(folder: Path, client: Any, tmp_path: Path) -> None:
    args = ("components", "serve", "state.sqlite", "--name", "shared")
    command = [sys.executable, "-m", "meshnode", *args]
    env = {**surroundings_of(tmp_path), **variables(folder)}
    with process(command, env=env) as served:
        served.wait_for("serving state.sqlite")
        resources = SERVED % (tmp_path / "shared.db")
        with node("app", tmp_path, resources=resources, env=variables(folder)) as running:
            with client(address=running.address) as sdk:
                sdk.save_state("statestore", "k", "value")
                assert sdk.get_state("statestore", "k").data == b"value"
            assert served.end(signal.SIGTERM) == 0
            running.process.wait_for("is lost")
            with process(command, env=env) as again:
                again.wait_for("serving state.sqlite")
                running.process.wait_for("is back")
                with client(address=running.address) as sdk:
                    assert sdk.get_state("statestore", "k").data == b"value"


@pytest.mark.parametrize(
    ("types", "code", "words"),
    [
        (("state.sqlit",), 2, "did you mean"),
        (("lock.sqlite",), 2, "cannot be served"),
        (("state.sqlite", "state.in-memory"), 2, "cannot share a socket"),
    ],
)
def test_what_cannot_be_served(
    folder: Path, tmp_path: Path, types: tuple[str, ...], code: int, words: str
) -> None:
    ended = meshnode("components", "serve", *types, home=tmp_path, folder=folder)
    assert ended.returncode == code
    assert words in ended.stderr


@SDK_DEPRECATES
def test_a_component_that_came_after_the_start_is_found_when_resources_change(
    folder: Path, client: Any, tmp_path: Path
) -> None:
    memory = RESOURCES.split("---")[0].replace("state.gomem", "state.in-memory")
    memory = memory.partition("  metadata:\n")[0]
    with node("app", tmp_path, resources=memory, env=variables(folder)) as running, go_component(folder):
        (tmp_path / "resources-app" / "resources.yaml").write_text(RESOURCES)
        running.process.wait_for("Resources reloaded; components changed: pubsub, secrets, statestore, tick")
        with client(address=running.address) as sdk:
            sdk.save_state("statestore", "k", "value")
            loaded = {one.name: one.type for one in sdk.get_metadata().registered_components}
            assert loaded["statestore"] == "state.gomem"
            assert sdk.get_state("statestore", "k").data == b"value"
