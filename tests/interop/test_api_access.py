"""Who may call what, at a daprd and at a meshnode: API tokens, allowed and denied APIs; and what both say of
themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from dapr.proto.runtime.v1 import (
    appcallback_pb2_grpc,
    configuration_pb2,
    metadata_pb2,
    secret_pb2,
    state_pb2,
)
from support.install_daprd import find_daprd
from support.processes import wait_until
from support.redis_servers import find_redis_server, free_port, redis_server
from support.sidecars import Case, Pair, ask, compare, sidecars

pytestmark = [
    pytest.mark.skipif(find_daprd() is None, reason="daprd is not installed"),
    pytest.mark.skipif(find_redis_server() is None, reason="redis-server is not installed"),
]

COMPONENT = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: %s}
spec: {type: %s, version: v1, metadata: [%s]}
---
"""
SUBSCRIPTION = """
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec:
  pubsubname: events
  topic: orders
  routes: {rules: [{match: 'event.type == "a"', path: /a}], default: /b}
  deadLetterTopic: dead
  metadata: {some: thing}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: policies}
spec: {policies: {retries: {some: {policy: constant, duration: 1s}}}, targets: {}}
"""
CONFIGURATION = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: config}
spec:
  nameResolution: {component: sqlite, version: v1, configuration: {connectionString: "HOME/names.db"}}
  api:
"""
ALLOWED = """    allowed: [{name: state, version: v1, protocol: grpc}]"""
DENIED = """    denied: [{name: state, version: v1, protocol: grpc}]"""
FLAGS = ("--app-max-concurrency", "3")
DESCRIBED = "DECLARATIVE"
STATE = COMPONENT % ("store", "state.in-memory", "")
TOKEN = [("dapr-api-token", "secret")]
GET = state_pb2.GetStateRequest(store_name="store", key="k")
WATCH = configuration_pb2.SubscribeConfigurationRequest(store_name="s", keys=["k"])
SECRET = secret_pb2.GetSecretRequest(store_name="s", key="k")
WHO = Case("metadata", "GetMetadata", metadata_pb2.GetMetadataRequest())


def tokened(name: str, *metadata: tuple[str, str]) -> list[Case]:
    return [
        Case(f"{name}, GetState", "GetState", GET, metadata=metadata),
        Case(f"{name}, SubscribeConfiguration", "SubscribeConfiguration", WATCH, metadata=metadata),
        Case(f"{name}, GetSecret", "GetSecret", SECRET, metadata=metadata),
    ]


TOKENS = [
    *tokened("no token"),
    *tokened("wrong token", ("dapr-api-token", "guess")),
    *tokened("empty token", ("dapr-api-token", "")),
    *tokened("token of other case", ("dapr-api-token", "SECRET")),
    *tokened("right token", *TOKEN),
]
LISTED = [
    Case("GetState", "GetState", GET),
    Case("SaveState", "SaveState", state_pb2.SaveStateRequest(store_name="store")),
    Case("GetSecret", "GetSecret", SECRET),
    Case("SubscribeConfiguration", "SubscribeConfiguration", WATCH),
    Case("SetMetadata", "SetMetadata", metadata_pb2.SetMetadataRequest(key="a", value="b")),
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with sidecars(tmp_path_factory.mktemp("interop-token"), STATE, env={"DAPR_API_TOKEN": "secret"}) as pair:
        yield pair


@pytest.fixture(scope="module", params=[ALLOWED, DENIED], ids=["allowed", "denied"])
def listed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("interop-lists")
    with sidecars(home, STATE, configuration=CONFIGURATION + request.param) as pair:
        yield pair


@pytest.mark.parametrize("case", TOKENS, ids=str)
def test_token(guarded: Pair, case: Case) -> None:
    compare(guarded, case)


@pytest.mark.parametrize("case", LISTED, ids=str)
def test_listed_apis(listed: Pair, case: Case) -> None:
    compare(listed, case)


@contextmanager
def application() -> Iterator[int]:
    """One that answers nothing but where it is."""
    port = free_port()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    appcallback_pb2_grpc.add_AppCallbackServicer_to_server(  # type: ignore[no-untyped-call]
        appcallback_pb2_grpc.AppCallbackServicer(), server
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """What both say of themselves, with one component of each type, a subscription and an application."""
    home = tmp_path_factory.mktemp("interop-metadata")
    (home / "keys").mkdir()
    (home / "secrets.json").write_text("{}")
    with redis_server(home / "redis") as redis, application() as port:
        host = f'{{name: redisHost, value: "{redis.address}"}}'
        kinds = {
            "state.in-memory": "",
            "state.redis": host,
            "pubsub.redis": host,
            "lock.redis": host,
            "configuration.redis": host,
            "bindings.cron": '{name: schedule, value: "@every 24h"}',
            "secretstores.local.file": f'{{name: secretsFile, value: "{home}/secrets.json"}}',
            "crypto.dapr.localstorage": f'{{name: path, value: "{home}/keys"}}',
        }
        resources = "".join(COMPONENT % (kind.replace(".", "-"), kind, more) for kind, more in kinds.items())
        resources += COMPONENT % ("events", "pubsub.in-memory", "") + SUBSCRIPTION
        with sidecars(home, resources, *FLAGS, app_port=port) as pair:
            both = (pair.daprd, pair.meshnode)
            # Subscriptions begin once a sidecar is ready.
            wait_until(lambda: all(DESCRIBED in str(ask(one, WHO)) for one in both), what="subscriptions")
            theirs, ours = (ask(one, WHO).response for one in both)
            yield theirs, ours


@pytest.mark.parametrize("field", ["id", "app_connection_properties", "subscriptions"])
def test_metadata(described: tuple[Any, Any], field: str) -> None:
    theirs, ours = described
    assert ours[field] == theirs[field]


def test_registered_components(described: tuple[Any, Any]) -> None:
    def capabilities(answer: Any) -> dict[str, set[str]]:
        listed = answer["registered_components"]
        assert all(one["version"] == "v1" for one in listed)
        return {one["type"]: set(one.get("capabilities", ())) for one in listed}

    theirs, ours = map(capabilities, described)
    assert ours.keys() == theirs.keys()
    found = {
        kind: (theirs[kind] - own, own - theirs[kind]) for kind, own in ours.items() if own != theirs[kind]
    }
    assert found == {
        # What actors and workflows want of a store there is no use for; queries in memory are ours.
        "state.in-memory": ({"DELETE_WITH_PREFIX", "KEYS_LIKE"}, {"QUERY_API"}),
        "state.redis": ({"KEYS_LIKE"}, set()),
        # Topics are names here, not patterns. Both brokers take and give in bulk by themselves, and the one
        # in memory keeps TTLs.
        "pubsub.in-memory": ({"SUBSCRIBE_WILDCARDS"}, {"BULK_PUBSUB", "MESSAGE_TTL"}),
        "pubsub.redis": (set(), {"BULK_PUBSUB"}),
    }


def test_what_else_metadata_says(described: tuple[Any, Any]) -> None:
    theirs, ours = described
    assert ours["runtime_version"].startswith("meshnode ")  # the one field that says which of the two it is
    assert ours["extended_metadata"] == {"daprRuntimeVersion": ours["runtime_version"]}
    assert theirs["extended_metadata"] == {"daprRuntimeVersion": theirs["runtime_version"]}
    assert ours["actor_runtime"] == {"runtime_status": "DISABLED"}  # there are no actors
    assert "HotReload" in theirs["enabled_features"]
    assert ours["enabled_features"] == ["HotReload"]
    assert ours["resiliencies"] == [{"name": "policies"}]  # daprd lists none outside Kubernetes
    assert "resiliencies" not in theirs
