"""Pub/sub and bindings through clients no one here wrote: the SDKs from PyPI, npm and the Go module proxy, as
publishers, as subscribers by callback and by stream, and at both ends of bindings.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from dapr.proto.runtime.v1 import dapr_pb2_grpc, metadata_pb2
from support.processes import Node, Process, healthz, node, process, wait_until
from support.redis_servers import free_port

HERE = Path(__file__).parent
RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec:
  type: pubsub.in-memory
  version: v1
  metadata: [{name: redeliverInterval, value: 100ms}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: small}
spec:
  type: pubsub.in-memory
  version: v1
  metadata: [{name: maxQueued, value: "2"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: tick}
spec:
  type: bindings.cron
  version: v1
  metadata: [{name: schedule, value: "@every 1s"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: files}
spec:
  type: bindings.localstorage
  version: v1
  metadata: [{name: rootPath, value: FILES}]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: bulk}
spec:
  pubsubname: pubsub
  topic: bulk
  routes: {default: bulk}
  bulkSubscribe: {enabled: true, maxMessagesCount: 10, maxAwaitDurationMs: 200}
"""


class Mesh:
    """A node, and the application beside it, whose printed events are read here."""

    def __init__(self, running: Node, app: Process) -> None:
        self.node = running
        self._app = app

    def events(self, handler: str) -> list[dict[str, Any]]:
        rows = (json.loads(line) for line in self._app.lines if line.startswith("{"))
        return [row for row in rows if row["handler"] == handler]

    def wait(self, handler: str, count: int) -> list[dict[str, Any]]:
        """The events of a handler once there are so many."""
        what = f"event {count} of {handler}"
        wait_until(lambda: len(self.events(handler)) >= count, what=what)
        return self.events(handler)

    def data(self, handler: str, count: int) -> list[Any]:
        """What came to a handler, which is to be so much; sorted, for deliveries run side by side."""
        return sorted((one["data"] for one in self.wait(handler, count)), key=json.dumps)

    def subscriptions(self, topic: str) -> Sequence[Any]:
        with grpc.insecure_channel(self.node.address) as channel:
            found = dapr_pb2_grpc.DaprStub(channel).GetMetadata(metadata_pb2.GetMetadataRequest())
        return [one for one in found.subscriptions if one.topic == topic]


@contextmanager
def beside(
    home: Path, port: int, grpc_port: int, topics: str, command: Sequence[str], cwd: Path = HERE
) -> Iterator[Mesh]:
    """An application that listens on `port`, and its node once it is subscribed to the application's topics.

    (What is published before has no group to keep it.)
    """
    resources = RESOURCES.replace("FILES", str(home / "files"))
    with ExitStack() as stack:
        app = stack.enter_context(process(command, cwd=cwd))
        flags: dict[str, Any] = {"app_port": port, "grpc_port": grpc_port, "resources": resources}
        running = stack.enter_context(node("events", home, **flags))
        for topic in topics.split():
            running.process.wait_for(f"app is subscribed to topic {topic} of pubsub pubsub")
        yield Mesh(running, app)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    port = free_port()
    command = [sys.executable, "events_app.py", str(port)]
    topics = "plain raw legacy routed retried dropped failing dead bulk"
    with beside(tmp_path_factory.mktemp("sdk-pubsub"), port, 0, topics, command) as running:
        yield running


@pytest.fixture
def python_sdk(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    with healthz() as port:
        from dapr.conf import settings

        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", port)
        monkeypatch.setattr(settings, "DAPR_GRPC_PORT", mesh.node.port)
        yield mesh


@pytest.fixture
def client(python_sdk: Mesh) -> Iterator[Any]:
    from dapr.clients import DaprClient

    with DaprClient(address=python_sdk.node.address) as client:
        yield client


# --- Python: publishing, and the application's callbacks


def test_python_publishes_bytes_text_and_json(mesh: Mesh, client: Any) -> None:
    client.publish_event("pubsub", "plain", b"\xff\x00", data_content_type="application/octet-stream")
    client.publish_event("pubsub", "plain", "text")
    client.publish_event("pubsub", "plain", json.dumps({"n": 1}), data_content_type="application/json")
    metadata = {"cloudevent.type": "note", "cloudevent.id": "own-id", "ttlInSeconds": "60"}
    client.publish_event("pubsub", "plain", '{"n": 2}', metadata, data_content_type="application/vnd.x+json")
    event = {"specversion": "1.0", "id": "whole", "type": "t", "source": "s", "data": {"n": 3}}
    client.publish_event(
        "pubsub", "plain", json.dumps(event), data_content_type="application/cloudevents+json"
    )
    found = {one["id"]: one for one in mesh.wait("plain", 5)}
    assert len(found) == 5
    assert found["whole"]["data"] is None  # the SDK reads only what has a content type
    assert base64.b64decode(found["whole"]["raw"]) == b'{"n": 3}'
    own = found.pop("own-id")
    assert (own["type"], own["data"], own["content_type"]) == ("note", {"n": 2}, "application/vnd.x+json")
    del found["whole"]
    # Without a key nothing is promised of their order.
    kinds = {one["content_type"]: one for one in found.values()}
    number = kinds["application/json"]
    assert kinds["application/octet-stream"]["raw"] == "/wA="
    assert (kinds["text/plain"]["data"], number["data"]) == ("text", {"n": 1})
    assert (number["source"], number["topic"], number["pubsub"]) == ("events", "plain", "pubsub")
    assert number["type"] == "com.dapr.event.sent"
    assert {"time", "traceparent"} <= set(number["extensions"])


def test_python_publishes_and_takes_raw_payloads(mesh: Mesh, client: Any) -> None:
    client.publish_event("pubsub", "raw", '{"no": "event"}', {"rawPayload": "true"})
    (event,) = mesh.wait("raw", 1)
    assert base64.b64decode(event["raw"]) == b'{"no": "event"}'
    assert event["content_type"] == "application/octet-stream"


def test_python_takes_events_as_the_older_kind_of_object(mesh: Mesh, client: Any) -> None:
    client.publish_event("pubsub", "legacy", "text")
    (event,) = mesh.wait("legacy", 1)
    assert (event["data"], event["subject"]) == ("text", "legacy")


def test_python_routes_by_rules(mesh: Mesh, client: Any) -> None:
    def publish(n: int, **metadata: str) -> None:
        client.publish_event(
            "pubsub", "routed", json.dumps({"n": n}), metadata, data_content_type="application/json"
        )

    publish(1, **{"cloudevent.type": "widget"})
    publish(7)
    publish(2)
    assert mesh.wait("widgets", 1)[0]["data"] == {"n": 1}
    assert mesh.wait("large", 1)[0]["data"] == {"n": 7}
    assert mesh.wait("the rest", 1)[0]["data"] == {"n": 2}


def test_python_asks_for_an_event_again(mesh: Mesh, client: Any) -> None:
    client.publish_event("pubsub", "retried", "once more")
    first, second = mesh.wait("retried", 2)
    assert (first["id"], first["data"]) == (second["id"], "once more")


def test_python_drops_and_fails_into_the_dead_letter_topic(mesh: Mesh, client: Any) -> None:
    client.publish_event("pubsub", "dropped", "not wanted")
    client.publish_event("pubsub", "failing", "too difficult")
    dead = {one["data"]: one for one in mesh.wait("dead", 2)}
    assert dead.keys() == {"not wanted", "too difficult"}
    (dropped,) = mesh.wait("dropped", 1)
    assert dead["not wanted"]["id"] == dropped["id"]
    (failing,) = mesh.wait("failing", 1)
    assert dead["too difficult"]["id"] == failing["id"]


def test_python_publishes_many_at_once_and_takes_them_in_bulk(mesh: Mesh, client: Any) -> None:
    from dapr.clients import BulkPublishEntry

    entries = [
        BulkPublishEntry(event='{"n": 0}'),
        BulkPublishEntry(event='{"n": 1}', metadata={"cloudevent.type": "note"}),
        BulkPublishEntry(event="text", content_type="text/plain", entry_id="mine"),
    ]
    answer = client.publish_events("pubsub", "bulk", entries, data_content_type="application/json")
    assert answer.failed_entries == []
    found = mesh.wait("bulk", 4)  # one was asked for again, alone
    data = [one["data"] for one in found]
    assert data[:3] == [{"n": 0}, {"n": 1}, "text"]
    assert data[3:] == [{"n": 1}]
    assert (found[3]["id"], found[3]["type"]) == (found[1]["id"], "note")


def test_python_is_told_which_entries_failed(mesh: Mesh, client: Any) -> None:
    subscription = client.subscribe("small", "narrow")  # the group exists from now on
    subscription.close()
    wait_until(lambda: not mesh.subscriptions("narrow"), what="the end of the subscription")
    answer = client.publish_events("small", "narrow", ["1", "2", "3", "4"])
    assert [one.error for one in answer.failed_entries] == [
        "consumer group events has 2 messages of topic narrow waiting"
    ] * 2
    assert len({one.entry_id for one in answer.failed_entries}) == 2


def test_python_gets_daprs_errors(client: Any) -> None:
    from dapr.clients.exceptions import DaprGrpcError

    with pytest.raises(DaprGrpcError) as caught:
        client.publish_event("ghost", "plain", "x")
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert caught.value.error_code() == "DAPR_PUBSUB_NOT_FOUND"
    with pytest.raises(DaprGrpcError) as caught:
        client.publish_event("pubsub", "plain", "{", data_content_type="application/cloudevents+json")
    assert caught.value.error_code() == "DAPR_PUBSUB_CLOUD_EVENT_CREATION"
    with pytest.raises(DaprGrpcError) as caught:
        client.publish_events("ghost", "plain", ["x"])
    assert caught.value.code().name == "INVALID_ARGUMENT"


# --- Python: bindings


def test_python_gets_ticks_and_invokes_bindings(mesh: Mesh, client: Any) -> None:
    assert mesh.wait("tick", 2)[0]["data"] == ""
    answer = client.invoke_binding("files", "create", "content", {"fileName": "py.txt"})
    assert json.loads(answer.text()) == {"fileName": "py.txt"}
    assert client.invoke_binding("files", "get", "", {"fileName": "py.txt"}).data == b"content"
    with pytest.raises(grpc.RpcError, match="couldn't find output binding ghost"):
        client.invoke_binding("ghost", "create", "x")
    with pytest.raises(grpc.RpcError, match="does not support operation spin"):
        client.invoke_binding("files", "spin", "x")


# --- Python: streaming subscriptions


def test_python_streams(mesh: Mesh, client: Any) -> None:
    subscription = client.subscribe("pubsub", "stream", dead_letter_topic="dead-stream")
    graves = client.subscribe("pubsub", "dead-stream")
    client.publish_event("pubsub", "stream", '{"n": 1}', data_content_type="application/json")
    first = subscription.next_message()
    assert (first.data(), first.topic(), first.pubsub_name()) == ({"n": 1}, "stream", "pubsub")
    assert first.source() == "events"
    subscription.respond_retry(first)
    again = graves.next_message()  # it has a dead-letter topic and no policy: as for Dapr, one failure is all
    assert again.id() == first.id()
    graves.respond_success(again)
    client.publish_event("pubsub", "stream", "unwanted")
    second = subscription.next_message()
    subscription.respond_drop(second)
    assert graves.next_message().id() == second.id()
    graves.close()
    wait_until(lambda: not mesh.subscriptions("dead-stream"), what="the end of the subscription")
    (held,) = mesh.subscriptions("stream")
    assert held.dead_letter_topic == "dead-stream"
    subscription.close()
    wait_until(lambda: not mesh.subscriptions("stream"), what="the end of the subscription")


def test_python_gets_back_what_a_closed_stream_had_not_answered(mesh: Mesh, client: Any) -> None:
    subscription = client.subscribe("pubsub", "left")
    client.publish_event("pubsub", "left", "1")
    lost = subscription.next_message()
    subscription.close()
    subscription = client.subscribe("pubsub", "left")
    again = subscription.next_message()
    assert again.id() == lost.id()
    subscription.respond_retry(again)
    third = subscription.next_message()
    assert third.id() == lost.id()
    subscription.respond_success(third)
    subscription.close()


def test_python_streams_into_a_handler(mesh: Mesh, client: Any) -> None:
    from dapr.clients.grpc._response import TopicEventResponse

    seen: list[Any] = []
    done = threading.Semaphore(0)

    def handle(message: Any) -> TopicEventResponse:
        seen.append(message.data())
        done.release()
        return TopicEventResponse("success" if seen.count(message.data()) > 1 else "retry")

    close = client.subscribe_with_handler("pubsub", "handled", handle)
    client.publish_event("pubsub", "handled", "a")
    client.publish_event("pubsub", "handled", "b")
    for _ in range(4):
        assert done.acquire(timeout=30)
    close()
    assert sorted(seen) == ["a", "a", "b", "b"]
    wait_until(lambda: not mesh.subscriptions("handled"), what="the end of the subscription")


def test_python_is_refused_a_stream(client: Any) -> None:
    with pytest.raises(Exception, match="pubsub ghost is not found"):
        client.subscribe("ghost", "any")


def test_python_aio(python_sdk: Mesh) -> None:
    from dapr.aio.clients import DaprClient
    from dapr.clients.grpc._response import TopicEventResponse

    async def stream(client: Any) -> None:
        subscription = await client.subscribe("pubsub", "aio")
        await client.publish_event("pubsub", "aio", b"bytes")
        first = await subscription.next_message()
        assert first.raw_data() == b"bytes"
        await subscription.respond_retry(first)
        again = await subscription.next_message()
        assert again.id() == first.id()
        await subscription.respond_success(again)
        answer = await client.publish_events("pubsub", "aio", ["1", "2"])
        assert answer.failed_entries == []
        rest = [await subscription.next_message() for _ in range(2)]
        assert [one.data() for one in rest] == ["1", "2"]
        for one in rest:
            await subscription.respond_success(one)
        await subscription.close()

    async def handler(client: Any) -> None:
        seen: asyncio.Queue[Any] = asyncio.Queue()

        async def handle(message: Any) -> TopicEventResponse:
            await seen.put(message.data())
            return TopicEventResponse("success")

        close = await client.subscribe_with_handler("pubsub", "aio-handled", handle)
        await client.publish_event("pubsub", "aio-handled", "a")
        assert await asyncio.wait_for(seen.get(), 30) == "a"
        await close()

    async def use() -> None:
        async with DaprClient(address=python_sdk.node.address) as client:
            await stream(client)
            await handler(client)
            answer = await client.invoke_binding("files", "create", b"x", {"fileName": "aio.txt"})
            assert json.loads(answer.text()) == {"fileName": "aio.txt"}

    asyncio.run(use())
    for topic in ("aio", "aio-handled"):
        wait_until(lambda topic=topic: not python_sdk.subscriptions(topic), what="the streams' end")  # type: ignore[misc]


# --- JavaScript and Go


@pytest.mark.node_sdk
def test_javascript(tmp_path: Path) -> None:
    folder = HERE / "npm_client"
    if shutil.which("node") is None or not (folder / "node_modules").exists():
        pytest.skip("Node.js or the npm package @dapr/dapr is not installed")
    port, grpc_port = free_port(), free_port()
    command = ["node", "server.mjs", str(port), str(grpc_port)]
    topics = "plain routed retried dropped dead many"
    with beside(tmp_path, port, grpc_port, topics, command, folder) as mesh:
        seen = answers(["node", "events.mjs", str(grpc_port)], folder)
        assert seen["bulk"] == {"failedMessages": []}
        assert len(seen["ghost"]["failedMessages"]) == 1
        assert "pubsub ghost is not found" in seen["unknown"]
        assert json.loads(seen["stored"]) == {"fileName": "js.txt"}
        assert seen["read"] == "from javascript"
        assert "couldn't find output binding ghost" in seen["noBinding"]
        assert mesh.data("plain", 3) == ["text", {"n": 1}, {"n": 2}]
        assert mesh.data("retried", 2) == ["once more"] * 2
        assert mesh.data("dropped", 1) == mesh.data("dead", 1) == ["not wanted"]
        assert mesh.data("widgets", 1) == [{"n": 3}]
        assert mesh.data("rest", 1) == [{"n": 4}]
        assert mesh.data("bulk", 3) == ["six", {"n": 5}, {"n": 7}]
        assert mesh.wait("tick", 1)


@pytest.mark.go_sdk
def test_go(tmp_path: Path) -> None:
    program = shutil.which("go-sdk-client")
    if program is None:
        pytest.skip("the client with Dapr's Go SDK is not built")
    port = free_port()
    topics = "plain routed retried dropped"
    with beside(tmp_path, port, 0, topics, [program, "serve", str(port)]) as mesh:
        seen = answers([program, "events", mesh.node.address], HERE)
        assert "pubsub ghost is not found" in seen["unknown"]
        assert "pubsub ghost is not found" in seen["ghost"]
        assert seen["failed"] == ["x"]
        assert (seen["streamed"], seen["same"], seen["ended"]) == ({"n": 1}, True, "EOF")
        assert seen["handled"] == "into the handler"
        assert json.loads(seen["stored"]) == {"fileName": "go.txt"}
        assert seen["read"] == "from go"
        assert "couldn't find output binding ghost" in seen["noBinding"]
        assert mesh.data("plain", 5) == ["six", "text", {"n": 1}, {"n": 5}, {"n": 7}]
        assert mesh.data("retried", 2) == ["once more"] * 2
        assert mesh.data("dropped", 1) == ["not wanted"]
        assert mesh.data("widgets", 1) == [{"n": 3}]
        assert mesh.data("rest", 1) == [{"n": 4}]
        assert mesh.wait("tick", 1)
        for topic in ("stream", "handled"):
            wait_until(lambda topic=topic: not mesh.subscriptions(topic), what="the streams' end")  # type: ignore[misc]


def answers(command: Sequence[str], cwd: Path) -> dict[str, Any]:
    """The JSON object that a client prints at its end."""
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=90)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seen: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return seen
