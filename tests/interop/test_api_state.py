"""The state API of a daprd and of a meshnode, request by request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dapr.proto.common.v1.common_pb2 import Etag, StateItem, StateOptions
from dapr.proto.runtime.v1 import state_pb2 as pb
from support.install_daprd import find_daprd
from support.redis_servers import find_redis_server, redis_server
from support.sidecars import Allowed, Case, Pair, compare, sidecars

pytestmark = [
    pytest.mark.skipif(find_daprd() is None, reason="daprd is not installed"),
    pytest.mark.skipif(find_redis_server() is None, reason="redis-server is not installed"),
]

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: memory}
spec: {type: state.in-memory, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: redis}
spec:
  type: state.redis
  version: v1
  metadata: [{name: redisHost, value: "ADDRESS"}, {name: redisDB, value: "DATABASE"}]
"""
NO_STORE = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: broker}
spec: {type: pubsub.in-memory, version: v1, metadata: []}
"""
FIRST_WRITE = StateOptions(concurrency=StateOptions.CONCURRENCY_FIRST_WRITE)


def item(key: str, value: bytes = b"v", etag: str | None = None, **more: Any) -> StateItem:
    return StateItem(key=key, value=value, etag=None if etag is None else Etag(value=etag), **more)


def save(store: str, *items: StateItem) -> pb.SaveStateRequest:
    return pb.SaveStateRequest(store_name=store, states=items)


def get(store: str, key: str, **metadata: str) -> pb.GetStateRequest:
    return pb.GetStateRequest(store_name=store, key=key, metadata=metadata)


def delete(store: str, key: str, etag: str | None = None) -> pb.DeleteStateRequest:
    return pb.DeleteStateRequest(store_name=store, key=key, etag=None if etag is None else Etag(value=etag))


def transact(store: str, *operations: tuple[str, StateItem]) -> pb.ExecuteStateTransactionRequest:
    made = [pb.TransactionalStateOperation(operationType=kind, request=one) for kind, one in operations]
    return pb.ExecuteStateTransactionRequest(storeName=store, operations=made)


def of_store(store: str) -> list[Case]:
    """What is asked of every store; the keys are the case's own, so that any can be run alone."""

    def saved(*items: StateItem) -> list[tuple[str, Any]]:
        return [("SaveState", save(store, *items))]

    def case(name: str, method: str, request: Any, *allowed: Allowed | None, before: Any = ()) -> Case:
        return Case(f"{store}: {name}", method, request, allowed[0] if allowed else None, before)

    def ttl(key: str, value: str) -> StateItem:
        return item(key, metadata={"ttlInSeconds": value})

    def bulk(*keys: str, parallelism: int = 0) -> pb.GetBulkStateRequest:
        return pb.GetBulkStateRequest(store_name=store, keys=keys, parallelism=parallelism)

    def removals(*items: StateItem) -> pb.DeleteBulkStateRequest:
        return pb.DeleteBulkStateRequest(store_name=store, states=items)

    def query(text: str) -> pb.QueryStateRequest:
        return pb.QueryStateRequest(store_name=store, query=text)

    stale = "7" if store == "redis" else "00000000-0000-0000-0000-000000000000"
    mismatch = "possible etag mismatch. error from state store: WORDS"
    lost = redis_only(
        store,
        "an etag of a key that is gone does not match: the update would be one of nothing",
        status="ABORTED",
        message=f"failed saving state in state store redis: {mismatch}",
        details=[info("ERR_STATE_SAVE")],
        response=None,
    )
    second = redis_only(
        store,
        "a first write that came second has lost to another, and is no failure of the store",
        status="ABORTED",
        message="failed saving state in state store redis: first write of key app||h, which already exists",
    )
    no_number = redis_only(
        store,
        "an etag that Redis cannot have made answers as it does on save",
        status="INVALID_ARGUMENT",
        message="failed deleting state with key o: invalid etag value WORDS",
    )
    words = redis_only(
        store,
        "daprd passes on what its script in Redis said",
        message=f"error while executing state transaction: {mismatch}",
    )
    return [
        case("get, no such key", "GetState", get(store, "nothing")),
        case("get, a key", "GetState", get(store, "a"), before=saved(item("a"))),
        case("get, illegal key", "GetState", get(store, "a||b")),
        case("get, empty key", "GetState", get(store, "")),
        case("save", "SaveState", save(store, item("b"))),
        case("save, nothing", "SaveState", save(store)),
        case("save, illegal key", "SaveState", save(store, item("a||b"))),
        case("save, empty key", "SaveState", save(store, item(""))),
        case("save, illegal second key", "SaveState", save(store, item("c"), item("a||b"))),
        case("save, bad etag", "SaveState", save(store, item("d", etag="x")), before=saved(item("d"))),
        case("save, stale etag", "SaveState", save(store, item("e", etag=stale)), before=saved(item("e"))),
        case("save, etag of nothing", "SaveState", save(store, item("none", etag=stale)), lost),
        case("save, empty etag", "SaveState", save(store, item("f", etag="")), before=saved(item("f"))),
        case("save, first write", "SaveState", save(store, item("g", options=FIRST_WRITE))),
        case(
            "save, second first write",
            "SaveState",
            save(store, item("h", options=FIRST_WRITE)),
            second,
            before=saved(item("h", options=FIRST_WRITE)),
        ),
        case(
            "save in bulk, one stale etag",
            "SaveState",
            save(store, item("i", etag=stale), item("j")),
            before=saved(item("i")),
        ),
        case(
            "save in bulk, one bad etag",
            "SaveState",
            save(store, item("k", etag="x"), item("l")),
            before=saved(item("k")),
        ),
        case("save, ttl 0", "SaveState", save(store, ttl("t0", "0"))),
        case("save, ttl -1", "SaveState", save(store, ttl("t1", "-1"))),
        case("save, ttl -2", "SaveState", save(store, ttl("t2", "-2")), ttl_refused("-2", response=None)),
        case("save, ttl text", "SaveState", save(store, ttl("t3", "soon")), ttl_refused("soon")),
        case("save, ttl empty", "SaveState", save(store, ttl("t4", ""))),
        case("get, ttl 0", "GetState", get(store, "t5"), before=saved(ttl("t5", "0"))),
        case(
            "get, ttl -1", "GetState", get(store, "t6"), before=[*saved(item("t6")), *saved(ttl("t6", "-1"))]
        ),
        case("delete", "DeleteState", delete(store, "m"), before=saved(item("m"))),
        case("delete, no such key", "DeleteState", delete(store, "nothing")),
        case("delete, illegal key", "DeleteState", delete(store, "a||b")),
        case("delete, empty key", "DeleteState", delete(store, "")),
        case("delete, stale etag", "DeleteState", delete(store, "n", stale), before=saved(item("n"))),
        case("delete, bad etag", "DeleteState", delete(store, "o", "x"), no_number, before=saved(item("o"))),
        case("delete, etag of nothing", "DeleteState", delete(store, "none", stale)),
        case("delete in bulk", "DeleteBulkState", removals(item("p"), item("q"))),
        case("delete in bulk, nothing", "DeleteBulkState", removals()),
        case("delete in bulk, illegal key", "DeleteBulkState", removals(item("p"), item("a||b"))),
        case(
            "delete in bulk, one stale etag",
            "DeleteBulkState",
            removals(item("r", etag=stale), item("s")),
            before=saved(item("r")),
        ),
        case(
            "delete in bulk, one, stale",
            "DeleteBulkState",
            removals(item("u", etag=stale)),
            before=saved(item("u")),
        ),
        case("get in bulk", "GetBulkState", bulk("v", "nothing", parallelism=1), before=saved(item("v"))),
        case("get in bulk, nothing", "GetBulkState", bulk()),
        case("get in bulk, negative parallelism", "GetBulkState", bulk("nothing", parallelism=-1)),
        case("get in bulk, illegal key", "GetBulkState", bulk("a||b", "nothing")),
        case("get in bulk, twice", "GetBulkState", bulk("w", "w"), before=saved(item("w"))),
        case(
            "transaction",
            "ExecuteStateTransaction",
            transact(store, ("upsert", item("x")), ("delete", item("y"))),
        ),
        case("transaction, nothing", "ExecuteStateTransaction", transact(store)),
        case(
            "transaction, unknown operation", "ExecuteStateTransaction", transact(store, ("merge", item("x")))
        ),
        case("transaction, empty operation", "ExecuteStateTransaction", transact(store, ("", item("x")))),
        case("transaction, capitals", "ExecuteStateTransaction", transact(store, ("Upsert", item("x")))),
        case(
            "transaction, illegal key", "ExecuteStateTransaction", transact(store, ("upsert", item("a||b")))
        ),
        case(
            "transaction, empty key",
            "ExecuteStateTransaction",
            transact(store, ("upsert", item(""))),
            no_key(store),
        ),
        case(
            "transaction, stale etag",
            "ExecuteStateTransaction",
            transact(store, ("upsert", item("z", etag=stale))),
            words,
            before=saved(item("z")),
        ),
        case(
            "transaction, bad etag",
            "ExecuteStateTransaction",
            transact(store, ("upsert", item("aa", etag="x"))),
            before=saved(item("aa")),
        ),
        case(
            "transaction, delete with a stale etag",
            "ExecuteStateTransaction",
            transact(store, ("delete", item("bb", etag=stale))),
            words,
            before=saved(item("bb")),
        ),
        case(
            "transaction, ttl text",
            "ExecuteStateTransaction",
            transact(store, ("upsert", ttl("cc", "soon"))),
            ttl_refused("soon"),
        ),
        case("query", "QueryStateAlpha1", query('{"filter": {"EQ": {"x": 1}}}'), queried(store, None)),
        case(
            "query, no JSON",
            "QueryStateAlpha1",
            query("{"),
            queried(store, "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ),
        case(
            "query, empty",
            "QueryStateAlpha1",
            query(""),
            queried(store, "Expecting value: line 1 column 1 (char 0)"),
        ),
    ]


def ttl_refused(text: str, **more: Any) -> Allowed:
    why = f"ttlInSeconds must be a whole number of seconds (-1 removes an expiry), not {text!r}"
    return Allowed(
        "a TTL that cannot be is the caller's mistake, which no store is asked about",
        {
            "status": "INVALID_ARGUMENT",
            "message": why,
            "details": [bad_request("metadata.ttlInSeconds", why)],
            **more,
        },
    )


def bad_request(at: str, why: str) -> tuple[str, Any]:
    return "BadRequest", {"field_violations": [{"field": at, "description": why}]}


def info(reason: str) -> tuple[str, Any]:
    return "ErrorInfo", {"reason": reason, "domain": "dapr.io"}


def about(store: str) -> tuple[str, Any]:
    return "ResourceInfo", {"resource_type": "state", "resource_name": store}


def no_key(store: str) -> Allowed:
    details = [bad_request("key", "must not be empty"), info("ERR_STATE_SAVE"), about(store)]
    ours = {"status": "INVALID_ARGUMENT", "message": "state key cannot be empty", "details": details}
    return Allowed(
        "an empty key is refused wherever one is written, as SaveState does", {**ours, "response": None}
    )


def queried(store: str, wrong: str | None) -> Allowed:
    """What a query without hits, or one that is `wrong`, is to answer."""
    if store == "redis":
        details = [info("DAPR_STATE_QUERYING_NOT_SUPPORTED"), about(store)]
        ours = {"message": "state store does not support querying", "details": details}
        return Allowed("Redis is not queried here: that takes RedisJSON, which this one does not have", ours)
    why = "state.in-memory can be queried here"
    if wrong is None:
        return Allowed(why, {"status": "OK", "message": "", "details": [], "response": {}})
    details = [info("DAPR_STATE_QUERY_FAILED"), about(store)]
    message = f"state store memory query failed: failed to parse JSON query body: {wrong}"
    return Allowed(why, {"status": "INVALID_ARGUMENT", "message": message, "details": details})


def redis_only(store: str, why: str, **ours: Any) -> Allowed | None:
    return Allowed(why, ours) if store == "redis" else None


def of_name(store: str) -> list[Case]:
    """Stores that are not there."""
    name = store or "no name"
    return [
        Case(f"get, {name}", "GetState", get(store, "a")),
        Case(
            f"get in bulk, {name}",
            "GetBulkState",
            pb.GetBulkStateRequest(store_name=store, keys=["a"]),
        ),
        Case(f"save, {name}", "SaveState", save(store, item("a"))),
        Case(f"delete, {name}", "DeleteState", delete(store, "a")),
        Case(
            f"delete in bulk, {name}",
            "DeleteBulkState",
            pb.DeleteBulkStateRequest(store_name=store, states=[item("a")]),
        ),
        Case(
            f"transaction, {name}",
            "ExecuteStateTransaction",
            transact(store, ("upsert", item("a"))),
        ),
        Case(
            f"query, {name}",
            "QueryStateAlpha1",
            pb.QueryStateRequest(store_name=store, query="{}"),
        ),
    ]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("interop-state")
    with redis_server(home / "redis") as redis:

        def resources(side: str) -> str:
            database = "0" if side == "daprd" else "1"
            return RESOURCES.replace("ADDRESS", redis.address).replace("DATABASE", database)

        with sidecars(home, resources) as pair:
            yield pair


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with sidecars(tmp_path_factory.mktemp("interop-bare"), NO_STORE) as pair:
        yield pair


@pytest.mark.parametrize("case", [*of_store("memory"), *of_store("redis")], ids=str)
def test_store(stores: Pair, case: Case) -> None:
    compare(stores, case)


@pytest.mark.parametrize("case", [*of_name("unknown"), *of_name("")], ids=str)
def test_unknown_store(stores: Pair, case: Case) -> None:
    compare(stores, case)


@pytest.mark.parametrize("case", of_name("memory"), ids=str)
def test_no_store_at_all(bare: Pair, case: Case) -> None:
    compare(bare, case)
