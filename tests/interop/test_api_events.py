"""Publishing, bindings and invocation at a daprd and at a meshnode, request by request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import binding_pb2, invoke_pb2
from dapr.proto.runtime.v1 import pubsub_pb2 as pb
from google.protobuf.empty_pb2 import Empty
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
spec:
  type: pubsub.in-memory
  version: v1
  metadata: [{name: publishingScopes, value: "app=open"}, {name: allowedTopics, value: "open,shut"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: redis}
spec:
  type: pubsub.redis
  version: v1
  metadata: [{name: redisHost, value: "ADDRESS"}, {name: redisDB, value: "DATABASE"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: clock}
spec: {type: bindings.cron, version: v1, metadata: [{name: schedule, value: "@every 24h"}]}
"""
NO_BROKER = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: state}
spec: {type: state.in-memory, version: v1, metadata: []}
"""
EVENT = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"n":1}}'
CLOUD_EVENT = "application/cloudevents+json"


def publish(
    pubsub: str, topic: str, data: bytes = b"{}", kind: str = "application/json", **metadata: str
) -> pb.PublishEventRequest:
    return pb.PublishEventRequest(
        pubsub_name=pubsub, topic=topic, data=data, data_content_type=kind, metadata=metadata
    )


def entry(name: str, data: bytes = b"{}", kind: str = "application/json") -> pb.BulkPublishRequestEntry:
    return pb.BulkPublishRequestEntry(entry_id=name, event=data, content_type=kind)


def bulk(pubsub: str, topic: str, *entries: Any, **metadata: str) -> pb.BulkPublishRequest:
    return pb.BulkPublishRequest(pubsub_name=pubsub, topic=topic, entries=entries, metadata=metadata)


def binding(name: str, operation: str) -> binding_pb2.InvokeBindingRequest:
    return binding_pb2.InvokeBindingRequest(name=name, operation=operation, data=b"{}")


def invoke(app: str, method: str) -> invoke_pb2.InvokeServiceRequest:
    return invoke_pb2.InvokeServiceRequest(id=app, message=common_pb2.InvokeRequest(method=method))


def ttl_refused(text: str) -> Allowed:
    message = f"ttlInSeconds must be a whole number of seconds from 1, not {text!r}"
    violations = [{"field": "metadata.ttlInSeconds", "description": message}]
    ours = {"status": "INVALID_ARGUMENT", "message": message, "response": None}
    why = "daprd passes over a TTL that cannot be, and the event stays for ever: here its publisher is told"
    return Allowed(why, {**ours, "details": [("BadRequest", {"field_violations": violations})]})


def no_event(why: str) -> Allowed:
    message = f"cannot create cloudevent: {why}"
    metadata = {"appID": "app", "error": why}
    details = [
        (
            "ErrorInfo",
            {"reason": "DAPR_PUBSUB_CLOUD_EVENT_CREATION", "domain": "dapr.io", "metadata": metadata},
        ),
        ("ResourceInfo", {"resource_type": "pubsub", "resource_name": "redis", "description": message}),
    ]
    return Allowed("the message says what is wrong with the event", {"message": message, "details": details})


NOT_JSON = no_event("Expecting value: line 1 column 2 (char 1)")
PUBLISHING = [
    Case("publish, in memory", "PublishEvent", publish("memory", "open")),
    Case("publish, forbidden topic", "PublishEvent", publish("memory", "shut")),
    Case("publish, topic that is not allowed", "PublishEvent", publish("memory", "other")),
    Case("publish", "PublishEvent", publish("redis", "t")),
    Case("publish, unknown pubsub", "PublishEvent", publish("unknown", "t")),
    Case("publish, empty pubsub", "PublishEvent", publish("", "t")),
    Case("publish, empty topic", "PublishEvent", publish("redis", "")),
    Case("publish, empty topic of an unknown pubsub", "PublishEvent", publish("unknown", "")),
    Case("publish, no data", "PublishEvent", publish("redis", "t", b"", "")),
    Case("publish, JSON that is none", "PublishEvent", publish("redis", "t", b"{")),
    Case("publish, a CloudEvent", "PublishEvent", publish("redis", "t", EVENT, CLOUD_EVENT)),
    Case(
        "publish, a CloudEvent that is none",
        "PublishEvent",
        publish("redis", "t", b"{", CLOUD_EVENT),
        NOT_JSON,
    ),
    Case("publish, an empty CloudEvent", "PublishEvent", publish("redis", "t", b"{}", CLOUD_EVENT)),
    Case("publish, raw", "PublishEvent", publish("redis", "t", b"x", rawPayload="true")),
    Case("publish, rawPayload is text", "PublishEvent", publish("redis", "t", b"x", rawPayload="perhaps")),
    Case(
        "publish, ttl is text",
        "PublishEvent",
        publish("redis", "t", ttlInSeconds="soon"),
        ttl_refused("soon"),
    ),
    Case("publish, ttl 0", "PublishEvent", publish("redis", "t", ttlInSeconds="0"), ttl_refused("0")),
    Case("publish, ttl -1", "PublishEvent", publish("redis", "t", ttlInSeconds="-1"), ttl_refused("-1")),
    *[
        case
        for method in ("BulkPublishEvent", "BulkPublishEventAlpha1")
        for case in (
            Case(f"{method}", method, bulk("redis", "t", entry("1"), entry("2"))),
            Case(f"{method}, unknown pubsub", method, bulk("unknown", "t", entry("1"))),
            Case(f"{method}, empty pubsub", method, bulk("", "t", entry("1"))),
            Case(f"{method}, empty topic", method, bulk("redis", "", entry("1"))),
            Case(f"{method}, forbidden topic", method, bulk("memory", "shut", entry("1"))),
            Case(f"{method}, nothing", method, bulk("redis", "t")),
            Case(f"{method}, the same id twice", method, bulk("redis", "t", entry("1"), entry("1"))),
            Case(f"{method}, empty id", method, bulk("redis", "t", entry(""))),
            Case(
                f"{method}, bad CloudEvent",
                method,
                bulk("redis", "t", entry("1", b"{", CLOUD_EVENT), entry("2")),
                NOT_JSON,
            ),
            Case(
                f"{method}, bad ttl",
                method,
                bulk("redis", "t", entry("1"), ttlInSeconds="soon"),
                ttl_refused("soon"),
            ),
            Case(f"{method}, bad rawPayload", method, bulk("redis", "t", entry("1"), rawPayload="perhaps")),
        )
    ],
]
BINDINGS = [
    Case("binding, unknown", "InvokeBinding", binding("unknown", "create")),
    Case("binding, empty name", "InvokeBinding", binding("", "create")),
    Case("binding, empty operation", "InvokeBinding", binding("unknown", "")),
    Case("binding, input only", "InvokeBinding", binding("clock", "create")),
]
INVOKING = [
    Case("invoke, unknown app", "InvokeService", invoke("ghost", "m")),
    Case("invoke, empty app", "InvokeService", invoke("", "m")),
    Case("invoke, empty method", "InvokeService", invoke("ghost", "")),
    Case("invoke, no message", "InvokeService", invoke_pb2.InvokeServiceRequest(id="ghost")),
    Case("invoke, itself without an application", "InvokeService", invoke("app", "m")),
]
NO_APP = Allowed(
    "daprd dials port 0; no wait makes an application of a node that has none, so it is not UNAVAILABLE",
    {
        "status": "INTERNAL",
        "message": "app channel is not initialized",
        "details": [("ErrorInfo", {"reason": "ERR_APP_CHANNEL_NOT_FOUND", "domain": "dapr.io"})],
    },
)
PROXIED = [
    Case("proxy, unknown app", "/a.B/C", Empty(), metadata=[("dapr-app-id", "ghost")]),
    Case("proxy, empty app", "/a.B/C", Empty(), metadata=[("dapr-app-id", "")]),
    Case("proxy, no app named", "/a.B/C", Empty()),
    Case(
        "proxy, itself without an application", "/a.B/C", Empty(), NO_APP, metadata=[("dapr-app-id", "app")]
    ),
    Case("proxy, unknown method of Dapr", "/dapr.proto.runtime.v1.Dapr/Nothing", Empty()),
]
NONE = [
    Case("publish", "PublishEvent", publish("redis", "t")),
    Case("publish, empty pubsub", "PublishEvent", publish("", "t")),
    Case("BulkPublishEvent", "BulkPublishEvent", bulk("redis", "t", entry("1"))),
    Case("binding", "InvokeBinding", binding("clock", "create")),
]
NAMING = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: config}
spec:
  nameResolution: {component: sqlite, version: v1, configuration: {connectionString: "HOME/names.db"}}
"""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("interop-events")
    with redis_server(home / "redis") as redis:

        def resources(side: str) -> str:
            database = "0" if side == "daprd" else "1"
            return RESOURCES.replace("ADDRESS", redis.address).replace("DATABASE", database)

        with sidecars(home, resources, configuration=NAMING) as pair:
            yield pair


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with sidecars(tmp_path_factory.mktemp("interop-bare"), NO_BROKER) as pair:
        yield pair


@pytest.mark.parametrize("case", [*PUBLISHING, *BINDINGS, *INVOKING, *PROXIED], ids=str)
def test_request(full: Pair, case: Case) -> None:
    compare(full, case)


@pytest.mark.parametrize("case", NONE, ids=str)
def test_no_component(bare: Pair, case: Case) -> None:
    compare(bare, case)
