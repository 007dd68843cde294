"""The state block over the in-memory store and over stores that fail on purpose: what goes to the driver, and
what callers see, google.rpc details decoded as SDKs decode them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
import trio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from meshnode_state_in_memory import MemoryStore
from trio.testing import MockClock

from meshnode.api.details import encode_details
from meshnode.blocks.call import Call, LiveCalls
from meshnode.blocks.encryption import EncryptionKey, ValueCipher
from meshnode.blocks.state import StateBlock, Store
from meshnode.blocks.statekeys import KeyPrefix
from meshnode.blocks.statequery import StateQuery, parse_query
from meshnode.config.loader import load_text
from meshnode.errors import (
    BulkStateError,
    ComponentUnavailable,
    EtagMismatch,
    InvalidArgument,
    MeshError,
    StateError,
    Status,
)
from meshnode.interfaces import BulkGetResult, Feature, GetRequest, GetResult, SetRequest
from meshnode.resiliency import NO_POLICY, Policies, Policy
from meshnode.testing.mesh import Mesh
from meshnode.transport import Deadline, GRPCError
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime

FIRST_WRITE = common.StateOptions(concurrency=common.StateOptionsStateConcurrency.CONCURRENCY_FIRST_WRITE)


@pytest.fixture
def driver() -> MemoryStore:
    return MemoryStore(wall=lambda: 1_000_000.0, rng=random.Random(1))


def call(deadline: Deadline | None = None) -> Call:
    return LiveCalls().begin("/test", "", deadline)


def block_over(
    driver: Any, *, prefix: str = "", policy: Policy = NO_POLICY, cipher: ValueCipher | None = None
) -> StateBlock:
    keys = KeyPrefix(prefix, store="store", app_id="app", namespace="blue")
    return StateBlock({"store": Store("store", driver, keys, policy, cipher)})


@pytest.fixture
def block(driver: MemoryStore) -> StateBlock:
    return block_over(driver)


def policy_of(text: str) -> Policy:
    """The policy of the store under a Resiliency resource whose `policies` and target are `text`."""
    manifest = f"""
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {{name: r}}
spec:
  policies:
    timeouts: {{short: 1s}}
    retries:
      twice: {{policy: constant, duration: 1s, maxRetries: 2}}
      forever: {{policy: constant, duration: 1s, maxRetries: -1}}
    circuitBreakers:
      simple: {{maxRequests: 1, timeout: 5s, trip: consecutiveFailures >= 2}}
  targets:
    components:
      store: {{outbound: {{{text}}}}}
"""
    policies = Policies.build(load_text(manifest).resiliencies, "app", "blue", rng=random.Random(1))
    return policies.for_component("store", "Statestore")


async def save(block: StateBlock, *items: common.StateItem, store: str = "store") -> None:
    await block.save(runtime.SaveStateRequest(store_name=store, states=list(items)), call())


async def get(block: StateBlock, key: str) -> runtime.GetStateResponse:
    return await block.get(runtime.GetStateRequest(store_name="store", key=key), call())


async def delete(block: StateBlock, key: str, etag: str | None = None) -> None:
    tag = None if etag is None else common.Etag(value=etag)
    await block.delete(runtime.DeleteStateRequest(store_name="store", key=key, etag=tag), call())


def item(key: str, value: bytes = b"v", etag: str | None = None, **metadata: str) -> common.StateItem:
    tag = None if etag is None else common.Etag(value=etag)
    return common.StateItem(key=key, value=value, etag=tag, metadata=metadata)


def operation(kind: str, one: common.StateItem) -> runtime.TransactionalStateOperation:
    return runtime.TransactionalStateOperation(operation_type=kind, request=one)


def transaction(*operations: runtime.TransactionalStateOperation) -> runtime.ExecuteStateTransactionRequest:
    return runtime.ExecuteStateTransactionRequest(store_name="store", operations=list(operations))


def decoded(packed: bytes | None) -> dict[str, Any]:
    """The details of an error by message name, read off `grpc-status-details-bin` as the Python SDK does."""
    status = status_pb2.Status.FromString(packed or b"")
    found: dict[str, Any] = {}
    for detail in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.ResourceInfo,
            error_details_pb2.BadRequest,
        ):
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                assert any_pb2.Any.Unpack(detail, message)
                found[kind.DESCRIPTOR.name] = message
    assert len(found) == len(status.details)
    return found


async def refused(awaitable: Awaitable[Any]) -> tuple[MeshError, dict[str, Any]]:
    with pytest.raises(MeshError) as caught:
        await awaitable
    return caught.value, decoded(encode_details(caught.value))


class Wrapped:
    """The in-memory store behind whatever a test puts in its way."""

    def __init__(self, *steps: Exception | None) -> None:
        self.inner = MemoryStore(wall=lambda: 0.0, rng=random.Random(1))
        self.steps = list(steps)
        self.calls: list[Any] = []
        self.features = self.inner.features

    def _step(self, argument: Any) -> None:
        self.calls.append(argument)
        step = self.steps.pop(0) if self.steps else None
        if step is not None:
            raise step

    async def get(self, request: GetRequest) -> GetResult | None:
        self._step(request)
        return await self.inner.get(request)

    async def set(self, request: SetRequest) -> None:
        self._step(request)
        await self.inner.set(request)

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        self._step([request.key for request in requests])
        await self.inner.bulk_set(requests)

    async def bulk_delete(self, requests: Sequence[Any]) -> None:
        self._step([request.key for request in requests])
        await self.inner.bulk_delete(requests)

    async def transact(self, operations: Sequence[Any], metadata: Mapping[str, str]) -> None:
        self._step(operations)
        await self.inner.transact(operations, metadata)


# --- keys


@pytest.mark.parametrize(
    ("strategy", "stored"),
    [
        ("", "app||k"),
        ("appid", "app||k"),
        ("AppId", "app||k"),
        ("name", "store||k"),
        ("none", "k"),
        ("namespace", "blue.app||k"),
        ("shared", "shared||k"),
        ("Shared", "shared||k"),  # lowered, as the reference does: both find each other's data
    ],
)
async def test_the_prefix_of_a_key_follows_the_strategy(
    driver: MemoryStore, strategy: str, stored: str
) -> None:
    block = block_over(driver, prefix=strategy)
    await save(block, item("k", b"value"))
    found = await driver.get(GetRequest(stored))
    assert found is not None
    assert found.data == b"value"
    assert (await get(block, "k")).data == b"value"
    bulk = await block.bulk_get(runtime.GetBulkStateRequest(store_name="store", keys=["k"]), call())
    assert bulk.items[0].key == "k"
    query = runtime.QueryStateRequest(store_name="store", query="{}")
    assert [one.key for one in (await StateQuery(block).query(query, call())).results] == ["k"]
    await delete(block, "k")
    assert await driver.get(GetRequest(stored)) is None


def test_namespace_without_a_namespace_is_the_app_id() -> None:
    assert KeyPrefix("namespace", store="s", app_id="app", namespace="").apply("k") == "app||k"


@pytest.mark.parametrize(
    "ask",
    [
        lambda block: get(block, "a||b"),
        lambda block: save(block, item("fine"), item("a||b")),
        lambda block: delete(block, "a||b"),
        lambda block: block.bulk_get(
            runtime.GetBulkStateRequest(store_name="store", keys=["x", "a||b"]), call()
        ),
        lambda block: block.bulk_delete(
            runtime.DeleteBulkStateRequest(store_name="store", states=[item("a||b")]), call()
        ),
        lambda block: block.transact(
            transaction(operation("upsert", item("fine")), operation("delete", item("a||b"))), call()
        ),
    ],
    ids=["get", "save", "delete", "bulk get", "bulk delete", "transaction"],
)
async def test_a_key_with_the_separator_is_refused_before_anything_is_written(
    block: StateBlock, driver: MemoryStore, ask: Callable[[StateBlock], Awaitable[Any]]
) -> None:
    error, details = await refused(ask(block))
    assert error.code is Status.INVALID_ARGUMENT
    assert error.message == "input key/keyPrefix 'a||b' can't contain '||'"
    info = details["ErrorInfo"]
    assert (info.reason, info.domain) == ("DAPR_STATE_ILLEGAL_KEY", "dapr.io")
    assert (details["ResourceInfo"].resource_type, details["ResourceInfo"].resource_name) == (
        "state",
        "store",
    )
    [violation] = details["BadRequest"].field_violations
    assert (violation.field, violation.description) == ("a||b", error.message)
    assert len(driver) == 0


def test_a_literal_prefix_with_the_separator_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"can't contain '\|\|'"):
        KeyPrefix("a||b", store="s", app_id="app", namespace="")


async def test_an_empty_key_cannot_be_saved(block: StateBlock) -> None:
    error, details = await refused(save(block, item("")))
    assert (error.code, error.message) == (Status.INVALID_ARGUMENT, "state key cannot be empty")
    assert details["ErrorInfo"].reason == "ERR_STATE_SAVE"


# --- stores


async def test_an_unknown_store_is_told_from_none_at_all(block: StateBlock) -> None:
    for ask in (block.get, block.save, block.delete, block.bulk_get, block.bulk_delete, block.transact):
        request: Any = runtime.GetStateRequest(store_name="ghost")
        error, details = await refused(ask(request, call()))
        assert (error.code, error.message) == (Status.INVALID_ARGUMENT, "state store ghost is not found")
        assert details["ErrorInfo"].reason == "DAPR_STATE_NOT_FOUND"
        assert details["ErrorInfo"].metadata == {}
        assert "ResourceInfo" not in details
    error, details = await refused(get(StateBlock({}), "k"))
    assert (error.code, error.message) == (Status.FAILED_PRECONDITION, "state store store is not configured")
    assert details["ErrorInfo"].reason == "DAPR_STATE_NOT_CONFIGURED"


# --- get, save, delete


async def test_a_key_that_is_not_there_is_an_empty_answer(block: StateBlock) -> None:
    assert bytes(await get(block, "nothing")) == b""


async def test_etags_of_saves_and_deletes(block: StateBlock) -> None:
    await save(block, item("k", b"1"))
    first = (await get(block, "k")).etag
    assert first
    await save(block, item("k", b"2", etag=first))
    error, details = await refused(save(block, item("k", b"3", etag=first)))
    assert error.code is Status.ABORTED
    assert error.message.startswith("failed saving state in state store store: possible etag mismatch.")
    assert (details["ErrorInfo"].reason, details["ErrorInfo"].domain) == ("ERR_STATE_SAVE", "dapr.io")
    error, details = await refused(delete(block, "k", etag=first))
    assert (error.code, details["ErrorInfo"].reason) == (Status.ABORTED, "ERR_STATE_DELETE")
    assert error.message.startswith("failed deleting state with key k: possible etag mismatch.")
    current = await get(block, "k")
    assert current.data == b"2"
    await delete(block, "k", etag=current.etag)
    assert not (await get(block, "k")).data


async def test_an_empty_etag_is_no_etag(driver: MemoryStore) -> None:
    seen: list[Any] = []

    class Spy(Wrapped):
        async def delete(self, request: Any) -> None:
            seen.append(request.etag)

    spy = Spy()
    block = block_over(spy)
    await save(block, item("k", etag=""))
    await delete(block, "k", etag="")
    await block.transact(transaction(operation("upsert", item("k", etag=""))), call())
    assert [request.etag for request in (spy.calls[0], *spy.calls[1])] == [None, None]
    assert seen == [None]


async def test_an_etag_the_store_cannot_know_is_the_caller_s_mistake() -> None:
    from meshnode.errors import EtagInvalid

    block = block_over(Wrapped(EtagInvalid("invalid etag value: x")))
    error, _ = await refused(save(block, item("k", etag="x")))
    assert error.code is Status.INVALID_ARGUMENT


async def test_of_two_first_writes_one_wins(block: StateBlock) -> None:
    first, second = item("k", b"1"), item("k", b"2")
    first.options = second.options = FIRST_WRITE
    await save(block, first)
    error, _ = await refused(save(block, second))
    assert error.code is Status.ABORTED
    assert (await get(block, "k")).data == b"1"


async def test_options_and_metadata_reach_the_driver() -> None:
    spy = Wrapped()
    one = item("k", b"v", ttlInSeconds="7", other="kept")
    one.options = common.StateOptions(
        concurrency=common.StateOptionsStateConcurrency.CONCURRENCY_LAST_WRITE,
        consistency=common.StateOptionsStateConsistency.CONSISTENCY_STRONG,
    )
    await save(block_over(spy), one)
    [request] = spy.calls
    assert (request.concurrency.name, request.consistency.name) == ("LAST_WRITE", "STRONG")
    assert request.ttl == 7
    assert request.metadata == {"ttlInSeconds": "7", "other": "kept"}


async def test_a_value_lives_as_long_as_its_ttl(block: StateBlock, autojump_clock: MockClock) -> None:
    await save(block, item("k", ttlInSeconds="10"))
    await trio.sleep(9.5)
    found = await get(block, "k")
    assert found.data == b"v"
    assert found.metadata["ttlExpireTime"] == "1970-01-12T13:46:40Z"
    await trio.sleep(1)
    assert not (await get(block, "k")).data


@pytest.mark.parametrize("text", ["soon", "1.5", "-2", "1_0", "99999999999", " 3 "])
async def test_a_ttl_that_is_no_number_of_seconds_is_refused(
    block: StateBlock, driver: MemoryStore, text: str
) -> None:
    error, details = await refused(save(block, item("k", ttlInSeconds=text)))
    assert error.code is Status.INVALID_ARGUMENT
    assert repr(text) in error.message
    assert details["BadRequest"].field_violations[0].field == "metadata.ttlInSeconds"
    assert len(driver) == 0


@pytest.mark.parametrize(("text", "ttl"), [("0", None), ("", None), ("-1", -1), ("60", 60)])
async def test_ttl_values_with_a_meaning(text: str, ttl: int | None) -> None:
    spy = Wrapped()
    await save(block_over(spy), item("k", ttlInSeconds=text))
    assert spy.calls[0].ttl == ttl


async def test_a_value_called_json_must_be_json(block: StateBlock, driver: MemoryStore) -> None:
    await save(block, item("k", b'{"a": 1}', contentType="application/json"))
    assert (await get(block, "k")).data == b'{"a": 1}'
    for bad in (b"{", b"\xff", b"", b"[" * 100_000):
        error, details = await refused(save(block, item("bad", bad, contentType="application/json")))
        assert error.code is Status.INVALID_ARGUMENT
        assert "value of key bad is not valid JSON" in error.message
        assert details["BadRequest"].field_violations[0].field == "value"
    await save(block, item("text", b"{", contentType="text/plain"))
    assert len(driver) == 2


async def test_a_driver_s_failure_is_internal_with_the_reference_s_words() -> None:
    def down() -> StateError:
        return StateError("no luck")

    block = block_over(Wrapped(down(), down(), down(), down(), down()))
    two = [item("a"), item("b")]
    asked: list[tuple[Awaitable[Any], str, str]] = [
        (get(block, "k"), "ERR_STATE_GET", "fail to get k from state store store: no luck"),
        (save(block, *two), "ERR_STATE_SAVE", "failed saving state in state store store: no luck"),
        (
            block.bulk_delete(runtime.DeleteBulkStateRequest(store_name="store", states=two), call()),
            "ERR_STATE_BULK_DELETE",
            "failed deleting state in state store store: no luck",
        ),
        (
            block.transact(transaction(operation("upsert", item("a"))), call()),
            "ERR_STATE_TRANSACTION",
            "error while executing state transaction: no luck",
        ),
    ]
    for awaitable, reason, message in asked:
        error, details = await refused(awaitable)
        assert (error.code, error.message) == (Status.INTERNAL, message)
        assert details["ErrorInfo"].reason == reason


async def test_a_lone_error_out_of_a_driver_s_nursery_is_that_error() -> None:
    class Grouping(Wrapped):
        async def set(self, request: SetRequest) -> None:
            async def fail() -> None:
                raise EtagMismatch("stale")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)

    error, _ = await refused(save(block_over(Grouping()), item("k", etag="1")))
    assert error.code is Status.ABORTED


# --- bulk


async def test_bulk_get_answers_in_order_with_errors_of_single_items() -> None:
    class Spotty(Wrapped):
        async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> list[BulkGetResult]:
            self.calls.append(parallelism)
            return [
                BulkGetResult(requests[0].key, GetResult(b"1", "e1", {"m": "x"})),
                BulkGetResult(requests[1].key),
                BulkGetResult(requests[2].key, error=StateError("shard is down")),
            ]

    spotty = Spotty()
    request = runtime.GetBulkStateRequest(store_name="store", keys=["a", "b", "c"], parallelism=3)
    answer = await block_over(spotty).bulk_get(request, call())
    assert [(one.key, one.data, one.etag, one.error) for one in answer.items] == [
        ("a", b"1", "e1", ""),
        ("b", b"", "", ""),
        ("c", b"", "", "shard is down"),
    ]
    assert answer.items[0].metadata == {"m": "x"}
    assert spotty.calls == [3]


async def test_bulk_requests_of_nothing_do_nothing() -> None:
    spy = Wrapped(StateError("must not be asked"))
    block = block_over(spy)
    assert not (await block.bulk_get(runtime.GetBulkStateRequest(store_name="store"), call())).items
    await save(block)
    await block.bulk_delete(runtime.DeleteBulkStateRequest(store_name="store"), call())
    await block.transact(transaction(), call())
    assert spy.calls == []


async def test_one_stale_etag_among_many_saves_aborts_and_the_others_are_there(block: StateBlock) -> None:
    error, _ = await refused(save(block, item("a"), item("b", etag="stale"), item("c")))
    assert error.code is Status.ABORTED
    assert (await get(block, "a")).data
    assert not (await get(block, "b")).data
    assert (await get(block, "c")).data


async def test_a_stale_etag_shows_even_behind_another_failure() -> None:
    failures = {0: StateError("disk full"), 1: EtagMismatch("stale")}
    block = block_over(Wrapped(BulkStateError(failures)))
    error, _ = await refused(save(block, item("a"), item("b", etag="x")))
    assert error.code is Status.ABORTED
    assert "disk full; stale" in error.message


async def test_a_retry_of_a_bulk_save_repeats_only_what_failed(autojump_clock: MockClock) -> None:
    down = ComponentUnavailable("down")
    partly = BulkStateError({1: StateError("busy"), 2: EtagMismatch("stale"), 3: StateError("busy")})
    again = BulkStateError({0: StateError("busy")})
    store = Wrapped(down, partly, again, None)
    block = block_over(store, policy=policy_of("retry: forever"))
    error, _ = await refused(save(block, item("a"), item("b"), item("c", etag="x"), item("d")))
    assert store.calls == [
        ["app||a", "app||b", "app||c", "app||d"],
        ["app||a", "app||b", "app||c", "app||d"],
        ["app||b", "app||d"],
        ["app||b"],
    ]
    assert (error.code, error.message) == (
        Status.ABORTED,
        "failed saving state in state store store: stale",
    )


async def test_a_bulk_delete_gives_up_with_the_policy(autojump_clock: MockClock) -> None:
    busy = [BulkStateError({0: StateError("busy")}) for _ in range(3)]
    store = Wrapped(*busy)
    block = block_over(store, policy=policy_of("retry: twice"))
    request = runtime.DeleteBulkStateRequest(store_name="store", states=[item("a"), item("b")])
    error, details = await refused(block.bulk_delete(request, call()))
    assert store.calls == [["app||a", "app||b"], ["app||a"], ["app||a"]]
    assert (error.code, details["ErrorInfo"].reason) == (Status.INTERNAL, "ERR_STATE_BULK_DELETE")


# --- transactions


async def test_a_transaction_is_all_or_nothing(block: StateBlock) -> None:
    await save(block, item("old", b"1"))
    await block.transact(
        transaction(operation("upsert", item("new", b"2")), operation("delete", item("old"))), call()
    )
    assert (await get(block, "new")).data == b"2"
    assert not (await get(block, "old")).data
    error, details = await refused(
        block.transact(
            transaction(operation("upsert", item("new", b"3")), operation("delete", item("x", etag="stale"))),
            call(),
        )
    )
    assert error.code is Status.INTERNAL  # the reference's code for etags inside a transaction
    assert error.message.startswith("error while executing state transaction: possible etag mismatch.")
    assert details["ErrorInfo"].reason == "ERR_STATE_TRANSACTION"
    assert (await get(block, "new")).data == b"2"


async def test_a_stale_etag_in_a_transaction_is_not_retried(autojump_clock: MockClock) -> None:
    store = Wrapped()
    block = block_over(store, policy=policy_of("retry: forever"))
    await refused(block.transact(transaction(operation("upsert", item("a", etag="stale"))), call()))
    assert len(store.calls) == 1


async def test_operations_a_transaction_does_not_know(block: StateBlock, driver: MemoryStore) -> None:
    error, details = await refused(
        block.transact(transaction(operation("upsert", item("a")), operation("append", item("b"))), call())
    )
    assert (error.code, error.message) == (Status.UNIMPLEMENTED, "operation type append not supported")
    assert details["ErrorInfo"].reason == "ERR_NOT_SUPPORTED_STATE_OPERATION"
    assert len(driver) == 0


async def test_a_store_without_transactions_says_so() -> None:
    store = Wrapped()
    store.features = frozenset({Feature.ETAG})
    error, details = await refused(
        block_over(store).transact(transaction(operation("upsert", item("a"))), call())
    )
    assert error.code is Status.UNIMPLEMENTED
    assert error.message == "state store store doesn't support transactions"
    assert details["ErrorInfo"].reason == "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED"
    assert details["ResourceInfo"].resource_name == "store"


# --- encryption

OLD, NEW = EncryptionKey("old-key", "00" * 32), EncryptionKey("new-key", "11" * 16)


async def test_values_are_encrypted_at_rest_and_keys_rotate(driver: MemoryStore) -> None:
    before = block_over(driver, cipher=ValueCipher("store", OLD))
    await save(before, item("k", b"secret"))
    stored = await driver.get(GetRequest("app||k"))
    assert stored is not None
    assert b"secret" not in stored.data
    assert stored.data.endswith(b"||old-key")  # Dapr's format, which names the key
    rotated = block_over(driver, cipher=ValueCipher("store", NEW, OLD))
    assert (await get(rotated, "k")).data == b"secret"
    await rotated.transact(transaction(operation("upsert", item("k2", b"newer"))), call())
    written = await driver.get(GetRequest("app||k2"))
    assert written is not None
    assert written.data.endswith(b"||new-key")
    bulk = await rotated.bulk_get(runtime.GetBulkStateRequest(store_name="store", keys=["k", "k2"]), call())
    assert [one.data for one in bulk.items] == [b"secret", b"newer"]


async def test_a_store_is_not_told_that_what_is_encrypted_is_json() -> None:
    """`state.mongodb` would try to read it."""
    seen: list[str] = []

    class Spy(Wrapped):
        async def set(self, request: SetRequest) -> None:
            seen.append(request.content_type)

    document = item("k", b"{}", contentType="application/json")
    await save(block_over(Spy()), document)
    await save(block_over(Spy(), cipher=ValueCipher("store", OLD)), document)
    assert seen == ["application/json", ""]


async def test_a_value_none_of_the_keys_opens_is_an_error_of_its_own(driver: MemoryStore) -> None:
    plain = block_over(driver)
    await save(plain, item("plain", b"text"), item("empty", b""))
    await save(block_over(driver, cipher=ValueCipher("store", OLD)), item("old", b"x"))
    await save(plain, item("damaged", b"AAAA||new-key"))
    block = block_over(driver, cipher=ValueCipher("store", NEW))
    await save(block, item("good", b"y"))
    for key, why in (
        ("plain", "encryption key name not found"),
        ("old", "no key named 'old-key'"),
        ("damaged", "the record is damaged"),
    ):
        error, details = await refused(get(block, key))
        assert (error.code, details["ErrorInfo"].reason) == (Status.INTERNAL, "ERR_STATE_GET")
        assert why in error.message
    assert (await get(block, "empty")).data == b""  # nothing to decrypt, as in the reference
    bulk = await block.bulk_get(
        runtime.GetBulkStateRequest(store_name="store", keys=["good", "plain", "empty"]), call()
    )
    assert [(one.data, bool(one.error)) for one in bulk.items] == [(b"y", False), (b"", True), (b"", False)]


async def test_an_encrypted_store_cannot_be_queried(driver: MemoryStore) -> None:
    block = block_over(driver, cipher=ValueCipher("store", OLD))
    error, _ = await refused(
        StateQuery(block).query(runtime.QueryStateRequest(store_name="store", query="{}"), call())
    )
    assert (error.code, error.message) == (
        Status.INTERNAL,
        "state store store query failed: cannot query encrypted store",
    )


@pytest.mark.parametrize(
    ("key", "why"), [("zz" * 16, "not hexadecimal"), ("00" * 15, "has 15 bytes"), ("", "has 0 bytes")]
)
def test_a_key_that_cannot_encrypt_is_refused_by_name_and_not_shown(key: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        ValueCipher("store", EncryptionKey("mine", key))
    assert "'mine'" in str(caught.value)
    assert not key or key not in str(caught.value)
    assert "0000" not in repr(OLD)


# --- queries


async def test_a_query_filters_sorts_and_pages(block: StateBlock) -> None:
    people = {"a": ("Oslo", 3), "b": ("Rome", 1), "c": ("Oslo", 2)}
    await save(
        block,
        *[item(key, json.dumps({"city": city, "age": age}).encode()) for key, (city, age) in people.items()],
    )
    text = json.dumps(
        {"filter": {"EQ": {"city": "Oslo"}}, "sort": [{"key": "age", "order": "DESC"}], "page": {"limit": 1}}
    )
    query = StateQuery(block)
    first = await query.query(runtime.QueryStateRequest(store_name="store", query=text), call())
    assert [one.key for one in first.results] == ["a"]
    assert json.loads(first.results[0].data) == {"city": "Oslo", "age": 3}
    following = json.loads(text)
    following["page"]["token"] = first.token
    second = await query.query(
        runtime.QueryStateRequest(store_name="store", query=json.dumps(following)), call()
    )
    assert [one.key for one in second.results] == ["c"]


async def test_a_query_sees_only_keys_of_its_own_prefix(driver: MemoryStore) -> None:
    await save(block_over(driver, prefix="other"), item("k", b"1"))
    mine = block_over(driver)
    await save(mine, item("k", b"2"))
    answer = await StateQuery(mine).query(runtime.QueryStateRequest(store_name="store", query="{}"), call())
    assert [one.data for one in answer.results] == [b"2"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "the query must be a JSON object"),
        ('{"where": {}}', "unknown field 'where'"),
        ('{"filter": []}', ""),
        ('{"filter": [1]}', "a filter must be a JSON object"),
        ('{"filter": {"EQ": {"a": 1}, "IN": {"a": [1]}}}', "exactly one operator, not 2"),
        ('{"filter": {"LIKE": {"a": 1}}}', "unknown operator 'LIKE'"),
        ('{"filter": {"EQ": {"a": 1, "b": 2}}}', "EQ takes one key and its value"),
        ('{"filter": {"IN": {"a": 1}}}', "IN takes one key and a list"),
        ('{"filter": {"AND": [{"EQ": {"a": 1}}]}}', "AND takes a list of at least two"),
        ('{"filter": {"OR": [{"EQ": {"a": 1}}, 2]}}', "a filter must be a JSON object"),
        ('{"sort": 1}', "sort must be a list"),
        ('{"sort": {"key": "a"}}', "sort must be a list"),
        ('{"sort": [{"key": 1}]}', "each entry of sort"),
        ('{"sort": [{"key": "a", "order": "UP"}]}', "each entry of sort"),
        ('{"sort": ["a"]}', "each entry of sort"),
        ('{"page": {"limit": -1}}', "page.limit"),
        ('{"page": {"limit": true}}', "page.limit"),
        ('{"page": {"limit": 1.5}}', "page.limit"),
        ('{"page": {"token": 1}}', "page.token"),
        ('{"page": 3}', "page must be a JSON object"),
        ('{"filter": ' + '{"AND": [' * 5000, "too deeply"),
        (
            '{"filter": ' + '{"AND": [{"EQ": {"a": 1}}, ' * 600 + '{"EQ": {"a": 1}}' + "]}" * 600 + "}",
            "too deeply",
        ),
    ],
)
async def test_a_query_that_makes_no_sense_says_where(block: StateBlock, text: str, why: str) -> None:
    if not why:
        assert parse_query(text, "", {}).filter is None
        return
    request = runtime.QueryStateRequest(store_name="store", query=text)
    error, details = await refused(StateQuery(block).query(request, call()))
    assert error.code is Status.INVALID_ARGUMENT
    assert error.message.startswith("state store store query failed: failed to parse JSON query body: ")
    assert why in error.message
    assert details["ErrorInfo"].reason == "DAPR_STATE_QUERY_FAILED"


async def test_a_store_that_cannot_be_queried_says_so() -> None:
    store = Wrapped()
    store.features = frozenset({Feature.ETAG})
    request = runtime.QueryStateRequest(store_name="store", query="{}")
    error, details = await refused(StateQuery(block_over(store)).query(request, call()))
    assert (error.code, error.message) == (Status.INTERNAL, "state store does not support querying")
    assert details["ErrorInfo"].reason == "DAPR_STATE_QUERYING_NOT_SUPPORTED"


# --- policies


async def test_a_failing_driver_is_retried_and_the_call_shows_it(autojump_clock: MockClock) -> None:
    store = Wrapped(ComponentUnavailable("down"), ComponentUnavailable("down"))
    block = block_over(store, policy=policy_of("retry: twice"))
    mine = call()
    began = trio.current_time()
    await block.save(runtime.SaveStateRequest(store_name="store", states=[item("k")]), mine)
    assert trio.current_time() - began == pytest.approx(2)
    assert mine.view is not None
    assert mine.view.target == "component/store"
    assert [attempt.code for attempt in mine.view.attempts] == [Status.INTERNAL, Status.INTERNAL, Status.OK]


async def test_what_no_retry_can_mend_is_not_retried(autojump_clock: MockClock) -> None:
    store = Wrapped()
    block = block_over(store, policy=policy_of("retry: forever"))
    error, _ = await refused(save(block, item("k", etag="stale")))
    assert error.code is Status.ABORTED
    assert len(store.calls) == 1


async def test_an_open_breaker_is_unknown_and_reaches_no_driver(autojump_clock: MockClock) -> None:
    store = Wrapped(*[ComponentUnavailable("down") for _ in range(9)])
    block = block_over(store, policy=policy_of("circuitBreaker: simple"))
    for _ in range(2):
        await refused(get(block, "k"))
    for ask in (
        get(block, "k"),
        save(block, item("k")),
        save(block, item("k"), item("l")),
        block.transact(transaction(operation("upsert", item("k"))), call()),
    ):
        error, _ = await refused(ask)
        assert (error.code, error.message) == (Status.UNKNOWN, "circuit breaker is open")
    assert len(store.calls) == 2


async def test_a_driver_that_hangs_is_cancelled_by_the_attempt_timeout(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    class Hanging(Wrapped):
        async def set(self, request: SetRequest) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())

    block = block_over(Hanging(), policy=policy_of("timeout: short"))
    began = trio.current_time()
    error, _ = await refused(save(block, item("k")))
    assert error.message.endswith("context deadline exceeded")
    assert ended == [pytest.approx(began + 1)]


async def test_a_retry_that_cannot_be_in_time_is_not_begun(autojump_clock: MockClock) -> None:
    store = Wrapped(*[ComponentUnavailable("down") for _ in range(9)])
    block = block_over(store, policy=policy_of("retry: forever"))
    began = trio.current_time()
    with pytest.raises(MeshError, match="down"):
        await block.get(
            runtime.GetStateRequest(store_name="store", key="k"), call(Deadline(trio.current_time() + 2.5))
        )
    assert trio.current_time() - began == pytest.approx(2)
    assert len(store.calls) == 3


# --- over the wire


async def test_details_travel_in_the_trailers(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app")
    with pytest.raises(GRPCError) as caught:
        await node.dapr.get_state(runtime.GetStateRequest(store_name="statestore", key="a||b"))
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert isinstance(caught.value.details, bytes)
    status = status_pb2.Status.FromString(caught.value.details)
    assert (status.code, status.message) == (3, caught.value.message)
    assert set(decoded(caught.value.details)) == {"ErrorInfo", "ResourceInfo", "BadRequest"}


async def test_the_key_prefix_of_a_component_is_used_and_a_bad_one_stops_the_node(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    component = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: statestore}}
spec:
  type: State.In-Memory
  version: v1
  metadata:
  - {{name: keyprefix, value: "{}"}}
"""
    one = await mesh.start("one", resources=component.format("name"))
    await one.dapr.save_state(runtime.SaveStateRequest(store_name="statestore", states=[item("k")]))
    answer = await one.dapr.get_state(runtime.GetStateRequest(store_name="statestore", key="k"))
    assert answer.data == b"v"
    with pytest.raises(MeshError, match=r"two\.yaml:9: spec\.metadata\.keyprefix: .* can't contain"):
        await mesh.start("two", resources=component.format("a||b"))
