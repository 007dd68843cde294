"""Drivers of meshnode's served to a daprd as pluggable components; their process killed and brought back."""

from __future__ import annotations

import json
import queue
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from attrs import frozen
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import (
    appcallback_pb2,
    binding_pb2,
    dapr_pb2_grpc,
    metadata_pb2,
    pubsub_pb2,
    secret_pb2,
    state_pb2,
)
from support.components import socket_folder
from support.daprd_servers import daprd
from support.install_daprd import find_daprd
from support.processes import Process, process, surroundings_of, wait_until

pytestmark = pytest.mark.skipif(find_daprd() is None, reason="daprd is not installed")
TYPES = ("state.sqlite", "pubsub.sqlite", "secretstores.local.file", "bindings.localstorage")


def component(name: str, kind: str, **metadata: str) -> str:
    items = [{"name": key, "value": value} for key, value in metadata.items()]
    spec = {"type": kind, "version": "v1", "metadata": items}
    return json.dumps(
        {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": name}, "spec": spec}
    )


def resources(home: Path, **more: str) -> str:
    return "\n---\n".join(
        [
            component("store", "state.ours", connectionString=str(home / "s.db"), **more),
            component("bus", "pubsub.ours", connectionString=str(home / "p.db"), **more),
            component("vault", "secretstores.ours", secretsFile=str(home / "secrets.json")),
            component("files", "bindings.ours", rootPath=str(home / "files")),
        ]
    )


@contextmanager
def served(folder: Path, home: Path) -> Iterator[Process]:
    command = [sys.executable, "-m", "meshnode", "components", "serve", *TYPES, "--name", "ours"]
    env = {**surroundings_of(home), "DAPR_COMPONENTS_SOCKETS_FOLDER": str(folder)}
    with process(command, env=env) as running:
        running.wait_for("serving ")
        yield running


@frozen
class Sidecar:
    stub: Any
    home: Path
    component: Process
    """The process that serves, which a test may kill."""
    folder: Path
    log: Process


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    (tmp_path / "secrets.json").write_text(json.dumps({"token": "xyzzy", "db": {"user": "ann"}}))
    (tmp_path / "files").mkdir()
    with socket_folder() as folder, served(folder, tmp_path) as component:
        env = {"DAPR_COMPONENTS_SOCKETS_FOLDER": str(folder)}
        with (
            daprd("app", tmp_path, resources=resources(tmp_path), env=env) as running,
            grpc.insecure_channel(running.address) as channel,
        ):
            stub = dapr_pb2_grpc.DaprStub(channel)  # type: ignore[no-untyped-call]
            yield Sidecar(stub, tmp_path, component, folder, running.process)


def save(dapr: Any, value: bytes, etag: str | None = None) -> None:
    item = common_pb2.StateItem(key="k", value=value)
    if etag is not None:
        item.etag.value = etag
    dapr.SaveState(state_pb2.SaveStateRequest(store_name="store", states=[item]), timeout=20)


def get(dapr: Any, key: str = "k") -> Any:
    return dapr.GetState(state_pb2.GetStateRequest(store_name="store", key=key), timeout=20)


def secret(dapr: Any, key: str) -> dict[str, str]:
    return dict(dapr.GetSecret(secret_pb2.GetSecretRequest(store_name="vault", key=key), timeout=20).data)


def bind(dapr: Any, operation: str, data: bytes = b"") -> bytes:
    request = binding_pb2.InvokeBindingRequest(
        name="files", operation=operation, data=data, metadata={"fileName": "f"}
    )
    return bytes(dapr.InvokeBinding(request, timeout=20).data)


def publish(dapr: Any, data: bytes) -> None:
    request = pubsub_pb2.PublishEventRequest(
        pubsub_name="bus", topic="t", data=data, data_content_type="text/plain"
    )
    dapr.PublishEvent(request, timeout=20)


@contextmanager
def events(dapr: Any) -> Iterator[Iterator[bytes]]:
    """The data of what comes, each acknowledged before the next is asked for."""
    said: queue.Queue[Any] = queue.Queue()
    request = pubsub_pb2.SubscribeTopicEventsRequestAlpha1
    asked = pubsub_pb2.SubscribeTopicEventsRequestInitialAlpha1(pubsub_name="bus", topic="t")
    said.put(request(initial_request=asked))
    stream = dapr.SubscribeTopicEventsAlpha1(iter(said.get, None), timeout=60)
    next(stream)

    def came() -> Iterator[bytes]:
        for one in stream:
            status = appcallback_pb2.TopicEventResponse()
            done = pubsub_pb2.SubscribeTopicEventsRequestProcessedAlpha1(
                id=one.event_message.id, status=status
            )
            said.put(request(event_processed=done))
            yield one.event_message.data

    yield came()
    stream.cancel()
    said.put(None)


def refused(call: Any, *arguments: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    error: Any = caught.value
    return error.code(), error.details()


def test_state_as_a_daprd_uses_it(sidecar: Sidecar) -> None:
    dapr = sidecar.stub
    save(dapr, b"v")
    first = get(dapr)
    assert first.data == b"v"
    save(dapr, b"w", first.etag)
    code, words = refused(save, dapr, b"stale", first.etag)
    assert code is grpc.StatusCode.ABORTED
    assert "possible etag mismatch" in words
    bulk = dapr.GetBulkState(
        state_pb2.GetBulkStateRequest(store_name="store", keys=["k", "none"]), timeout=20
    )
    assert {one.key: one.data for one in bulk.items} == {"k": b"w", "none": b""}
    operations = [
        state_pb2.TransactionalStateOperation(
            operationType="upsert", request=common_pb2.StateItem(key="t", value=b'{"n": 1}')
        ),
        state_pb2.TransactionalStateOperation(operationType="delete", request=common_pb2.StateItem(key="k")),
    ]
    dapr.ExecuteStateTransaction(
        state_pb2.ExecuteStateTransactionRequest(storeName="store", operations=operations), timeout=20
    )
    assert (get(dapr, "t").data, get(dapr).data) == (b'{"n": 1}', b"")
    query = state_pb2.QueryStateRequest(store_name="store", query='{"filter": {"EQ": {"n": 1}}}')
    assert [one.key for one in dapr.QueryStateAlpha1(query, timeout=20).results] == ["t"]


def test_secrets_bindings_events_and_metadata(sidecar: Sidecar) -> None:
    dapr = sidecar.stub
    assert secret(dapr, "token") == {"token": "xyzzy"}
    bulk = dapr.GetBulkSecret(secret_pb2.GetBulkSecretRequest(store_name="vault"), timeout=20).data
    assert {key: dict(one.secrets) for key, one in bulk.items()} == {
        "token": {"token": "xyzzy"}, "db:user": {"db:user": "ann"},
    }  # fmt: skip
    code, words = refused(secret, dapr, "ghost")
    assert (code, "there is no secret 'ghost'" in words) == (grpc.StatusCode.INTERNAL, True)
    bind(dapr, "create", b"no base64!")
    assert bind(dapr, "get") == b"no base64!"
    with events(dapr) as came:
        for number in range(3):
            publish(dapr, b"%d" % number)
            assert next(came) == b"%d" % number
    found = dapr.GetMetadata(metadata_pb2.GetMetadataRequest(), timeout=20).registered_components
    assert {one.name: set(one.capabilities) - {"ACTOR"} for one in found} == {
        "store": {"ETAG", "TRANSACTIONAL", "TTL", "QUERY_API"}, "vault": set(),
        "bus": {"BULK_PUBSUB", "MESSAGE_TTL"}, "files": {"INPUT_BINDING", "OUTPUT_BINDING"},
    }  # fmt: skip
    assert "multi max size" not in sidecar.log.output  # of a transaction, which it asks for at the start


def test_a_process_that_was_killed(sidecar: Sidecar) -> None:
    """A daprd, unlike a meshnode, does not initialise a component's next process: only when its resource
    changes.
    """
    dapr = sidecar.stub
    save(dapr, b"kept")
    sidecar.component.end(signal.SIGKILL)
    code, words = refused(get, dapr)
    assert (code, "Unavailable" in words) == (grpc.StatusCode.INTERNAL, True)
    with served(sidecar.folder, sidecar.home) as again:
        wait_until(lambda: "Unavailable" not in refused(get, dapr)[1], what="the new process being dialled")
        code, words = refused(get, dapr)
        assert (code, 'component "store" is not initialised' in words) == (grpc.StatusCode.INTERNAL, True)
        file = sidecar.home / "daprd-app" / "resources.yaml"
        file.write_text(resources(sidecar.home, busyTimeout="3s"))
        for name in ("store", "bus"):
            again.wait_for(f"component {name} is initialised")
        wait_until(lambda: works(dapr), what="the store being used again")
        assert get(dapr).data == b"kept"
        publish(dapr, b"after")


def works(dapr: Any) -> bool:
    try:
        get(dapr)
    except grpc.RpcError:
        return False
    return True
