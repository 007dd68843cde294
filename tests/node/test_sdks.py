"""Clients no one here wrote against real nodes: the SDKs from PyPI, npm and the Go module proxy, each doing
state and invocation.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from support.processes import Node, healthz, node, process
from support.redis_servers import free_port

HERE = Path(__file__).parent
SDK_DEPRECATES = pytest.mark.filterwarnings("ignore:.* deprecated. :DeprecationWarning")


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Two nodes that found each other by the default name resolution; the one given back has no
    application.
    """
    home = tmp_path_factory.mktemp("sdk")
    port = free_port()
    with ExitStack() as stack:
        app = stack.enter_context(process([sys.executable, str(HERE / "echo_app.py"), str(port)]))
        app.wait_for("listening")
        echo = stack.enter_context(node("echo", home, app_port=port))
        echo.process.wait_for("Application discovered")
        yield stack.enter_context(node("caller", home))


@pytest.fixture
def python_sdk(caller: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    with healthz() as port:
        from dapr.conf import settings

        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", port)
        monkeypatch.setattr(settings, "DAPR_GRPC_PORT", caller.port)
        monkeypatch.setattr(settings, "DAPR_API_METHOD_INVOCATION_PROTOCOL", "grpc")
        yield caller


@pytest.mark.node_sdk
def test_javascript(caller: Node) -> None:
    modules = HERE / "npm_client" / "node_modules"
    if shutil.which("node") is None or not modules.exists():
        pytest.skip("Node.js or the npm package @dapr/dapr is not installed")
    command = ["node", "client.mjs", str(caller.port), "echo"]
    ran = subprocess.run(command, cwd=HERE / "npm_client", capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen["value"] == {"from": "javascript"}
    assert dict(seen["bulk"])["js-key"] == {"from": "javascript"}
    assert seen["transaction"] == "in transaction"
    assert not seen["deleted"]
    assert seen["invoked"] == {"from": "javascript"}
    assert "no-such-store is not found" in seen["unknown"]


@pytest.mark.go_sdk
def test_go(caller: Node) -> None:
    program = shutil.which("go-sdk-client")
    if program is None:
        pytest.skip("the client with Dapr's Go SDK is not built")
    ran = subprocess.run([program, caller.address, "echo"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen["value"] == "go-value"
    assert "code = Aborted" in seen["stale"]
    assert "possible etag mismatch" in seen["stale"]
    assert seen["bulk"] == {"go-key": "", "go-tx": "in transaction"}
    assert seen["invoked"] == "from go"
    assert seen["app_id"] == "caller"


@SDK_DEPRECATES
def test_python(python_sdk: Node) -> None:
    from dapr.clients import DaprClient
    from dapr.clients.exceptions import DaprGrpcError
    from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
    from dapr.clients.grpc._state import StateItem

    with DaprClient(address=python_sdk.address) as client:
        client.save_bulk_state(
            "statestore", [StateItem(key="py-a", value="1"), StateItem(key="py-b", value="2")]
        )
        first = client.get_state("statestore", "py-a")
        assert first.data == b"1"
        client.save_state("statestore", "py-a", "2", etag=first.etag)
        with pytest.raises(DaprGrpcError) as caught:
            client.save_state("statestore", "py-a", "3", etag=first.etag)
        assert caught.value.code().name == "ABORTED"
        assert caught.value.error_code() == "ERR_STATE_SAVE"
        operations = [
            TransactionalStateOperation("py-t", "in transaction"),
            TransactionalStateOperation("py-b", operation_type=TransactionOperationType.delete),
        ]
        client.execute_state_transaction("statestore", operations)
        items = client.get_bulk_state("statestore", ["py-t", "py-b"]).items
        assert {item.key: item.data for item in items} == {"py-t": b"in transaction", "py-b": b""}
        answer = client.invoke_method("echo", "echo", b'{"x": 1}', metadata=(("note", "carried"),))
        assert answer.data == b'{"x": 1}'
        assert answer.headers["seen-caller"] == ["caller"]
        assert answer.headers["seen-note"] == ["carried"]
        with pytest.raises(grpc.RpcError, match="the application refuses"):
            client.invoke_method("echo", "fail", b"")
        with pytest.raises(grpc.RpcError, match="failed to invoke, id: ghost, err: "):
            client.invoke_method("ghost", "echo", b"")
        with pytest.raises(DaprGrpcError) as unknown:
            client.get_state("no-such-store", "key")
        assert unknown.value.code().name == "INVALID_ARGUMENT"
        assert unknown.value.error_code() == "DAPR_STATE_NOT_FOUND"
        assert client.get_metadata().application_id == "caller"


@SDK_DEPRECATES
def test_python_aio(python_sdk: Node) -> None:
    from dapr.aio.clients import DaprClient

    async def use() -> None:
        async with DaprClient(address=python_sdk.address) as client:
            await client.save_state("statestore", "aio", "value")
            assert (await client.get_state("statestore", "aio")).data == b"value"
            answer = await client.invoke_method("echo", "echo", b"from aio")
            assert answer.data == b"from aio"

    asyncio.run(use())
