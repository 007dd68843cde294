"""The state block: what `SaveState`, `GetState` and their kin do between the wire and a driver.

Per store: the key prefix, encryption, the outbound resiliency policy, and the errors Dapr's clients know. It
takes and returns wire messages, because a second set of value types would be copied into and out of on the
hot path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar, final

import trio
from attrs import frozen

from meshnode.blocks.call import Call
from meshnode.blocks.encryption import ValueCipher
from meshnode.blocks.scoped import scoped
from meshnode.blocks.statekeys import KeyPrefix
from meshnode.errors import (
    BadRequestDetail,
    BulkStateError,
    CircuitOpen,
    ErrorInfoDetail,
    EtagInvalid,
    EtagMismatch,
    InvalidArgument,
    MeshError,
    ResourceInfoDetail,
    StateError,
    Status,
)
from meshnode.interfaces import (
    Concurrency,
    Consistency,
    DeleteRequest,
    Feature,
    GetRequest,
    SetRequest,
    StateOperation,
    StateStore,
)
from meshnode.resiliency import Policy
from meshnode.transport import HeaderBlock
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty

__all__ = ["Announced", "Outbox", "StateBlock", "Store"]

T = TypeVar("T")

_CONCURRENCY = {int(member.value): member for member in Concurrency}
_CONSISTENCY = {int(member.value): member for member in Consistency}
_WHOLE = re.compile(r"-?[0-9]{1,10}")
_EMPTY = Empty()
_JSON = "application/json"
_SETTLING = 1.0
"""Seconds that a cancelled transaction with events may take to make sure of its end."""


@frozen(eq=False)
class Store:
    """One opened state store as the block sees it. `policy` is its outbound policy; None means none
    applies.
    """

    name: str
    driver: StateStore
    prefix: KeyPrefix
    policy: Policy
    cipher: ValueCipher | None = None


@frozen
class Announced:
    """A transaction whose events have been announced: what goes to the store, and the markers among it."""

    operations: Sequence[StateOperation]
    markers: Sequence[str]


class Outbox(Protocol):
    """What publishes the upserts of a store's transactions."""

    async def announce(
        self,
        asked: Sequence[runtime.TransactionalStateOperation],
        operations: Sequence[StateOperation],
        headers: HeaderBlock | None,
        call: Call,
    ) -> Announced:
        """Before the transaction: `asked` and `operations` are the same ones, before and after key prefix
        and encryption. What is returned is to be committed.
        """
        ...

    async def committed(self, store: StateStore, announced: Announced) -> bool:
        """After a transaction that failed: whether an attempt of it went through all the same. If not, none
        will any more.
        """
        ...


@final
class StateBlock:
    """All state stores of one node, by component name."""

    def __init__(self, stores: Mapping[str, Store], outboxes: Mapping[str, Outbox] | None = None) -> None:
        self._stores = stores
        self._outboxes = {} if outboxes is None else outboxes

    async def get(self, request: runtime.GetStateRequest, call: Call) -> runtime.GetStateResponse:
        store = self.store(request.store_name)
        wanted = GetRequest(
            store.prefix.apply(request.key),
            _CONSISTENCY.get(int(request.consistency), Consistency.UNSPECIFIED),
            request.metadata,
        )
        try:
            found = await scoped(store.policy, partial(store.driver.get, wanted), call)
            if found is None:
                return runtime.GetStateResponse()
            data = store.cipher.decrypt(found.data) if store.cipher else found.data
        except MeshError as error:
            raise _failed(
                error, "ERR_STATE_GET", f"fail to get {request.key} from state store {store.name}: {error}"
            ) from error
        return runtime.GetStateResponse(data=data, etag=found.etag, metadata=dict(found.metadata))

    async def bulk_get(
        self, request: runtime.GetBulkStateRequest, call: Call
    ) -> runtime.GetBulkStateResponse:
        store = self.store(request.store_name)
        wanted = [GetRequest(store.prefix.apply(key), metadata=request.metadata) for key in request.keys]
        if not wanted:
            return runtime.GetBulkStateResponse()
        try:
            found = await scoped(
                store.policy, partial(store.driver.bulk_get, wanted, request.parallelism), call
            )
        except MeshError as error:
            raise _failed(
                error, "ERR_STATE_BULK_GET", f"fail to get keys from state store {store.name}: {error}"
            ) from error
        items = []
        for key, answer in zip(request.keys, found, strict=True):
            item = runtime.BulkStateItem(key=key)
            if answer.error is not None:
                item.error = str(answer.error)
            elif answer.result is not None:
                item.etag, item.metadata = answer.result.etag, dict(answer.result.metadata)
                try:
                    item.data = (
                        store.cipher.decrypt(answer.result.data) if store.cipher else answer.result.data
                    )
                except StateError as error:
                    item.error = str(error)
            items.append(item)
        return runtime.GetBulkStateResponse(items=items)

    async def save(self, request: runtime.SaveStateRequest, call: Call) -> Empty:
        store = self.store(request.store_name)
        writes = [self._write(store, item) for item in request.states]
        try:
            if len(writes) == 1:
                await scoped(store.policy, partial(store.driver.set, writes[0]), call)
            elif writes:
                await _run_bulk(store.policy, store.driver.bulk_set, writes, call)
        except MeshError as error:
            raise _failed(
                error, "ERR_STATE_SAVE", f"failed saving state in state store {store.name}: {error}"
            ) from error
        return _EMPTY

    async def delete(self, request: runtime.DeleteStateRequest, call: Call) -> Empty:
        store = self.store(request.store_name)
        removal = _removal(store, request.key, request.etag, request.options, request.metadata)
        try:
            await scoped(store.policy, partial(store.driver.delete, removal), call)
        except MeshError as error:
            raise _failed(
                error, "ERR_STATE_DELETE", f"failed deleting state with key {request.key}: {error}"
            ) from error
        return _EMPTY

    async def bulk_delete(self, request: runtime.DeleteBulkStateRequest, call: Call) -> Empty:
        store = self.store(request.store_name)
        removals = [
            _removal(store, item.key, item.etag, item.options, item.metadata) for item in request.states
        ]
        try:
            if len(removals) == 1:
                await scoped(store.policy, partial(store.driver.delete, removals[0]), call)
            elif removals:
                await _run_bulk(store.policy, store.driver.bulk_delete, removals, call)
        except MeshError as error:
            raise _failed(
                error, "ERR_STATE_BULK_DELETE", f"failed deleting state in state store {store.name}: {error}"
            ) from error
        return _EMPTY

    async def transact(
        self,
        request: runtime.ExecuteStateTransactionRequest,
        call: Call,
        headers: HeaderBlock | None = None,
    ) -> Empty:
        """`headers` are the call's own, for the trace of the events of a store with an outbox."""
        store = self.store(request.store_name)
        if Feature.TRANSACTIONAL not in store.driver.features:
            raise MeshError(
                f"state store {store.name} doesn't support transactions",
                ErrorInfoDetail("DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED"),
                ResourceInfoDetail("state", store.name),
                status=Status.UNIMPLEMENTED,
            )
        operations = [self._operation(store, operation) for operation in request.operations]
        if not operations:
            return _EMPTY
        outbox, announced = self._outboxes.get(store.name), None
        if outbox is not None:
            announced = await outbox.announce(request.operations, operations, headers, call)
            operations = list(announced.operations)
        try:
            await scoped(store.policy, partial(store.driver.transact, operations, request.metadata), call)
        except MeshError as error:
            if announced is not None and await _went_through(outbox, store, announced, call):
                return _EMPTY
            # Inside a transaction the reference answers INTERNAL for etags too.
            code = error.code if isinstance(error, CircuitOpen) else Status.INTERNAL
            raise _failed(
                error, "ERR_STATE_TRANSACTION", f"error while executing state transaction: {error}", code
            ) from error
        except trio.Cancelled:
            if announced is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _SETTLING):
                    await _went_through(outbox, store, announced, call)
            raise
        return _EMPTY

    def store(self, name: str) -> Store:
        """The store of that name, or the error of the reference."""
        store = self._stores.get(name)
        if store is not None:
            return store
        if not self._stores:
            raise MeshError(
                f"state store {name} is not configured",
                ErrorInfoDetail("DAPR_STATE_NOT_CONFIGURED"),
                status=Status.FAILED_PRECONDITION,
            )
        raise InvalidArgument(f"state store {name} is not found", ErrorInfoDetail("DAPR_STATE_NOT_FOUND"))

    def stores(self) -> Iterable[Store]:
        return self._stores.values()

    def _write(self, store: Store, item: common.StateItem) -> SetRequest:
        if not item.key:
            raise InvalidArgument(
                "state key cannot be empty",
                ErrorInfoDetail("ERR_STATE_SAVE"),
                ResourceInfoDetail("state", store.name),
                BadRequestDetail([("key", "must not be empty")]),
            )
        content_type = item.metadata.get("contentType", "") if item.metadata else ""
        value = item.value
        if content_type == _JSON:
            _check_json(item.key, value)
        options = item.options
        return SetRequest(
            key=store.prefix.apply(item.key),
            value=store.cipher.encrypt(value) if store.cipher else value,
            etag=_etag(item.etag),
            concurrency=_CONCURRENCY.get(int(options.concurrency), Concurrency.UNSPECIFIED)
            if options
            else Concurrency.UNSPECIFIED,
            consistency=_CONSISTENCY.get(int(options.consistency), Consistency.UNSPECIFIED)
            if options
            else Consistency.UNSPECIFIED,
            ttl=_ttl(item.metadata) if item.metadata else None,
            content_type="" if store.cipher else content_type,  # what is encrypted is no JSON
            metadata=item.metadata,
        )

    def _operation(self, store: Store, operation: runtime.TransactionalStateOperation) -> StateOperation:
        item = operation.request if operation.request is not None else common.StateItem()
        match operation.operation_type:
            case "upsert":
                return self._write(store, item)
            case "delete":
                return _removal(store, item.key, item.etag, item.options, item.metadata)
            case other:
                raise MeshError(
                    f"operation type {other} not supported",
                    ErrorInfoDetail("ERR_NOT_SUPPORTED_STATE_OPERATION"),
                    ResourceInfoDetail("state", store.name),
                    status=Status.UNIMPLEMENTED,
                )


async def _went_through(outbox: Outbox | None, store: Store, announced: Announced, call: Call) -> bool:
    assert outbox is not None, "it has announced the transaction"
    try:
        return await scoped(store.policy, partial(outbox.committed, store.driver, announced), call)
    except MeshError:
        return False  # the relay will find out


def _etag(etag: common.Etag | None) -> str | None:
    """An empty one is none, as in Dapr: some SDKs always send the field."""
    return (etag.value or None) if etag is not None else None


def _removal(
    store: Store,
    key: str,
    etag: common.Etag | None,
    options: common.StateOptions | None,
    metadata: Mapping[str, str],
) -> DeleteRequest:
    return DeleteRequest(
        key=store.prefix.apply(key),
        etag=_etag(etag),
        concurrency=_CONCURRENCY.get(int(options.concurrency), Concurrency.UNSPECIFIED)
        if options
        else Concurrency.UNSPECIFIED,
        consistency=_CONSISTENCY.get(int(options.consistency), Consistency.UNSPECIFIED)
        if options
        else Consistency.UNSPECIFIED,
        metadata=metadata,
    )


async def _run_bulk(
    policy: Policy, operation: Callable[[Sequence[T]], Awaitable[None]], items: Sequence[T], call: Call
) -> None:
    """A bulk write under a policy: a retry repeats only the items that failed, and never one whose etag was
    refused.

    Repeating an item that went through would find its own etag gone.
    """
    left: list[T] = list(items)
    refused: list[StateError] = []

    async def attempt() -> None:
        try:
            await operation(left)
        except BulkStateError as error:
            final = {
                at: one for at, one in error.failures.items() if isinstance(one, EtagMismatch | EtagInvalid)
            }
            refused.extend(final.values())
            left[:] = [left[at] for at in sorted(error.failures) if at not in final]
            if left:
                raise

    await scoped(policy, attempt, call)
    if refused:
        raise refused[0] if len(refused) == 1 else BulkStateError(dict(enumerate(refused)))


def _failed(error: MeshError, reason: str, message: str, code: Status | None = None) -> MeshError:
    """The block's error around a driver's, with the reference's code, reason and wording."""
    if isinstance(error, CircuitOpen):
        return error
    if code is None:
        # Of a bulk's failures an etag's counts most: it tells the caller that repeating is of no use.
        causes = error.failures.values() if isinstance(error, BulkStateError) else (error,)
        etags = [cause.code for cause in causes if isinstance(cause, EtagMismatch | EtagInvalid)]
        code = etags[0] if etags else Status.INTERNAL
    return MeshError(message, ErrorInfoDetail(reason), status=code)


def _ttl(metadata: Mapping[str, str]) -> int | None:
    text = metadata.get("ttlInSeconds")
    if not text:
        return None
    seconds = int(text) if _WHOLE.fullmatch(text) else -2
    if not -1 <= seconds < 2**31:
        message = f"ttlInSeconds must be a whole number of seconds (-1 removes an expiry), not {text!r}"
        raise InvalidArgument(message, BadRequestDetail([("metadata.ttlInSeconds", message)]))
    return seconds or None


def _check_json(key: str, value: bytes) -> None:
    try:
        json.loads(value)
    except (ValueError, RecursionError) as error:
        message = f"the value of key {key} is not valid JSON, which its contentType says it is: {error}"
        raise InvalidArgument(message, BadRequestDetail([("value", message)])) from error
