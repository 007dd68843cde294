"""A sidecar's state, whichever sidecar it is: the same requests to a daprd and to a meshnode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import grpc
from attrs import field, frozen
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import dapr_pb2_grpc, state_pb2

__all__ = ["Found", "State", "code_of", "delete", "upsert"]

FIRST_WRITE = common_pb2.StateOptions.CONCURRENCY_FIRST_WRITE


@frozen
class Found:
    data: bytes
    etag: str
    metadata: Mapping[str, str] = field(factory=dict)


@final
class State:
    """The state stores of a sidecar. An answer that is none raises grpc's error."""

    def __init__(self, name: str, channel: grpc.Channel) -> None:
        self.name = name
        self._stub: Any = dapr_pb2_grpc.DaprStub(channel)  # type: ignore[no-untyped-call]

    def save(
        self, store: str, key: str, value: bytes, etag: str = "", *, first: bool = False, **metadata: str
    ) -> None:
        item = upsert(key, value, etag, **metadata).request
        if first:
            item.options.concurrency = FIRST_WRITE
        self._stub.SaveState(state_pb2.SaveStateRequest(store_name=store, states=[item]), timeout=10)

    def get(self, store: str, key: str) -> Found:
        found = self._stub.GetState(state_pb2.GetStateRequest(store_name=store, key=key), timeout=10)
        return Found(found.data, found.etag, dict(found.metadata))

    def delete(self, store: str, key: str, etag: str = "") -> None:
        request = state_pb2.DeleteStateRequest(store_name=store, key=key)
        if etag:
            request.etag.value = etag
        self._stub.DeleteState(request, timeout=10)

    def bulk_get(self, store: str, *keys: str) -> Mapping[str, Found]:
        request = state_pb2.GetBulkStateRequest(store_name=store, keys=keys)
        items = self._stub.GetBulkState(request, timeout=10).items
        assert not any(item.error for item in items), items
        return {item.key: Found(item.data, item.etag, dict(item.metadata)) for item in items}

    def transact(self, store: str, *operations: Any, **metadata: str) -> None:
        request = state_pb2.ExecuteStateTransactionRequest(
            storeName=store, operations=operations, metadata=metadata
        )
        self._stub.ExecuteStateTransaction(request, timeout=10)

    def query(self, store: str, query: str) -> Sequence[tuple[str, bytes]]:
        request = state_pb2.QueryStateRequest(store_name=store, query=query)
        return [(item.key, item.data) for item in self._stub.QueryStateAlpha1(request, timeout=10).results]


def upsert(key: str, value: bytes, etag: str = "", **metadata: str) -> Any:
    item = common_pb2.StateItem(key=key, value=value, metadata=metadata)
    if etag:
        item.etag.value = etag
    return state_pb2.TransactionalStateOperation(operationType="upsert", request=item)


def delete(key: str) -> Any:
    item = common_pb2.StateItem(key=key)
    return state_pb2.TransactionalStateOperation(operationType="delete", request=item)


def code_of(call: Any, *arguments: Any, **options: Any) -> str:
    """The name of the status that a call ends with."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"
