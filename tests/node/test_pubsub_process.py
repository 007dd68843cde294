"""A node as a process while events are under way: it is asked to end, killed, loses its application. On each
broker that outlives a node.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from dapr.proto.runtime.v1 import appcallback_pb2, appcallback_pb2_grpc, dapr_pb2_grpc, pubsub_pb2
from support.processes import Node, node, wait_until
from support.redis_servers import find_redis_server, free_port, redis_server

SUCCESS = appcallback_pb2.TopicEventResponse.SUCCESS
RETRY = appcallback_pb2.TopicEventResponse.RETRY
SQLITE = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec:
  type: pubsub.sqlite
  version: v1
  metadata:
    - {name: connectionString, value: "WHERE"}
    - {name: redeliverInterval, value: 200ms}
"""
REDIS = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec:
  type: pubsub.redis
  version: v1
  metadata:
    - {name: redisHost, value: "WHERE"}
    - {name: redeliverInterval, value: 200ms}
    - {name: processingTimeout, value: 1s}
"""
PATIENT = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: patient}
spec:
  policies:
    retries: {forever: {policy: constant, duration: 60s, maxRetries: -1}}
  targets:
    components: {pubsub: {inbound: {retry: forever}}}
"""

TOPICS = {"orders": "dead", "dead": "", "kept": ""}
"""What the application subscribes to, each with its dead-letter topic."""

Answer = Callable[[str, grpc.ServicerContext], int]


class Application(appcallback_pb2_grpc.AppCallbackServicer):
    """Notes what it gets."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.answer: Answer = lambda data, context: SUCCESS
        self._news = threading.Condition()

    def ListTopicSubscriptions(self, request: Any, context: grpc.ServicerContext) -> Any:
        topics = [
            appcallback_pb2.TopicSubscription(pubsub_name="pubsub", topic=topic, dead_letter_topic=dead)
            for topic, dead in TOPICS.items()
        ]
        return appcallback_pb2.ListTopicSubscriptionsResponse(subscriptions=topics)

    def OnTopicEvent(self, request: Any, context: grpc.ServicerContext) -> Any:
        data = request.data.decode()
        with self._news:
            self.events.append((request.topic, data))
            self._news.notify_all()
        return appcallback_pb2.TopicEventResponse(status=self.answer(data, context))

    def wait(self, topic: str, data: str, times: int = 1) -> None:
        """Until the event has come so often."""

        def there() -> bool:
            return self.events.count((topic, data)) >= times

        with self._news:
            assert self._news.wait_for(there, 30), f"{data} did not come; there are {self.events}"


class Gate:
    """An answer that lets the node wait until the gate is opened. `broken` is what it did not wait for."""

    def __init__(self) -> None:
        self._waiting: list[threading.Event] = []
        self.broken: list[str] = []

    def __call__(self, data: str, context: grpc.ServicerContext) -> int:
        over = threading.Event()
        self._waiting.append(over)
        if context.add_callback(over.set):
            over.wait(60)
        if not context.is_active():
            self.broken.append(data)
        return SUCCESS

    def open(self) -> None:
        """Let go those that have come."""
        for over in self._waiting:
            over.set()


@contextmanager
def serving(app: Application, port: int) -> Iterator[None]:
    with ThreadPoolExecutor(16) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        appcallback_pb2_grpc.add_AppCallbackServicer_to_server(app, server)
        assert server.add_insecure_port(f"127.0.0.1:{port}") == port
        server.start()
        try:
            yield
        finally:
            server.stop(grace=None).wait()


class Shop:
    """What a test needs: its application, and nodes beside it one after another."""

    def __init__(self, home: Path, broker: str) -> None:
        self.app = Application()
        self.port = free_port()
        self._home = home
        self._broker = broker

    @contextmanager
    def node(self, grace: int = 20, policy: str = "", *, app: bool = True) -> Iterator[Node]:
        """A node that is subscribed to what the application asks for, where there is one."""
        flags = ("--dapr-graceful-shutdown-seconds", str(grace))
        port = self.port if app else None
        with node("shop", self._home, *flags, resources=self._broker + policy, app_port=port) as running:
            for topic in TOPICS if app else ():
                running.process.wait_for(f"app is subscribed to topic {topic} of pubsub pubsub")
            yield running

    def app_up(self) -> AbstractContextManager[None]:
        return serving(self.app, self.port)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    if request.param == "sqlite":
        yield Shop(tmp_path, SQLITE.replace("WHERE", str(tmp_path / "topics.db")))
    elif find_redis_server() is None:
        pytest.skip("redis-server is not installed")
    else:
        with redis_server(tmp_path) as server:
            yield Shop(tmp_path, REDIS.replace("WHERE", server.address))


def publish(to: Node, data: str, topic: str = "orders") -> None:
    with grpc.insecure_channel(to.address) as channel:
        request = pubsub_request(topic, data)
        dapr_pb2_grpc.DaprStub(channel).PublishEvent(request)


def pubsub_request(topic: str, data: str) -> Any:
    return pubsub_pb2.PublishEventRequest(
        pubsub_name="pubsub", topic=topic, data=data.encode(), data_content_type="text/plain"
    )


def asked_to_end(running: Node) -> None:
    running.process.popen.send_signal(signal.SIGTERM)
    running.process.wait_for("Shutting down: ")


def nothing_but_the_last_word(shop: Shop, *, expected: list[str]) -> None:
    """A new node brings what `expected` names, once each, and nothing that was dead-lettered."""
    shop.app.events.clear()
    shop.app.answer = lambda data, context: SUCCESS
    with shop.node() as running:
        for data in expected:
            shop.app.wait("orders", data)
        for topic in ("orders", "dead"):
            publish(running, "last word", topic)
            shop.app.wait(topic, "last word")
        assert running.process.end() == 0
    assert sorted(shop.app.events) == sorted(
        [("dead", "last word"), ("orders", "last word"), *(("orders", data) for data in expected)]
    )


def test_a_delivery_under_way_is_finished_and_what_comes_later_waits(shop: Shop) -> None:
    shop.app.answer = gate = Gate()
    with shop.app_up():
        with shop.node() as running, grpc.insecure_channel(running.address) as channel:
            publish(running, "under way")
            shop.app.wait("orders", "under way")
            asked_to_end(running)
            # The application may still need its node, and what it publishes is for later.
            dapr_pb2_grpc.DaprStub(channel).PublishEvent(pubsub_request("orders", "later"))
            gate.open()
            assert running.process.popen.wait(30) == 0
            running.process.wait_for("Shutdown complete: ")
        assert gate.broken == []
        assert shop.app.events == [("orders", "under way")]
        nothing_but_the_last_word(shop, expected=["later"])


def test_a_delivery_that_outlasts_the_grace_goes_back(shop: Shop) -> None:
    shop.app.answer = gate = Gate()
    with shop.app_up():
        with shop.node(grace=1) as running:
            publish(running, "endless")
            shop.app.wait("orders", "endless")
            asked_to_end(running)
            assert running.process.popen.wait(30) == 0
            line = running.process.lines[running.process.wait_for("Shutdown complete: ")]
            assert "1 cancelled (/pubsub/pubsub/orders)" in line
        wait_until(lambda: gate.broken == ["endless"], what="the end of the call")
        nothing_but_the_last_word(shop, expected=["endless"])


def test_an_event_that_waits_for_its_next_attempt_goes_back(shop: Shop) -> None:
    shop.app.answer = lambda data, context: RETRY
    with shop.app_up():
        with shop.node(grace=2, policy=PATIENT) as running:
            publish(running, "unlucky")
            running.process.wait_for("Error processing operation component[pubsub] input. Retrying in 1m0s…")
            asked_to_end(running)
            assert running.process.popen.wait(40) == 0
        assert shop.app.events == [("orders", "unlucky")]
        nothing_but_the_last_word(shop, expected=["unlucky"])


def test_a_refusal_during_the_shutdown_is_not_dead_lettered(shop: Shop) -> None:
    opened = threading.Event()

    def refuse(data: str, context: grpc.ServicerContext) -> int:
        assert opened.wait(60)
        return RETRY

    shop.app.answer = refuse
    with shop.app_up():
        with shop.node() as running:
            publish(running, "refused")
            shop.app.wait("orders", "refused")
            asked_to_end(running)
            opened.set()
            assert running.process.popen.wait(30) == 0
        nothing_but_the_last_word(shop, expected=["refused"])


def test_a_node_that_is_killed_loses_nothing(shop: Shop) -> None:
    shop.app.answer = gate = Gate()
    with shop.app_up():
        with shop.node() as running:
            for number in range(5):
                publish(running, f"order {number}")
            for number in range(5):
                shop.app.wait("orders", f"order {number}")
            running.process.popen.kill()
            running.process.popen.wait()
        wait_until(lambda: len(gate.broken) == 5, what="the end of the calls")
        nothing_but_the_last_word(shop, expected=[f"order {number}" for number in range(5)])


def test_an_application_that_goes_and_comes_back(shop: Shop) -> None:
    shop.app.answer = gate = Gate()
    with ExitStack() as node_life, ExitStack() as app_life:
        app_life.enter_context(shop.app_up())
        running = node_life.enter_context(shop.node())
        publish(running, "half done", "kept")
        shop.app.wait("kept", "half done")
        app_life.close()
        running.process.wait_for("error returned from app while processing a pub/sub event of pubsub pubsub")
        assert gate.broken == ["half done"]
        publish(running, "meanwhile", "kept")
        shop.app.answer = lambda data, context: SUCCESS
        app_life.enter_context(shop.app_up())
        shop.app.wait("kept", "half done", times=2)
        shop.app.wait("kept", "meanwhile")
        asked_to_end(running)
        assert running.process.popen.wait(30) == 0
        nothing_but_the_last_word(shop, expected=[])


def test_a_stream_ends_with_its_node_and_what_it_had_not_answered_goes_back(shop: Shop) -> None:
    with shop.node(grace=2, app=False) as running, stream(running) as subscriber:
        publish(running, "answered", "streamed")
        publish(running, "left", "streamed")
        assert {subscriber.event(), subscriber.event()} == {"answered", "left"}
        asked_to_end(running)
        subscriber.answer("answered")
        with pytest.raises(grpc.RpcError) as caught:
            subscriber.event()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert running.process.popen.wait(30) == 0
    with shop.node(app=False) as running, stream(running) as subscriber:
        assert subscriber.event() == "left"
        subscriber.answer("left")
        publish(running, "last word", "streamed")
        assert subscriber.event() == "last word"


class Subscriber:
    """One streaming subscription to `streamed`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        initial = pubsub_pb2.SubscribeTopicEventsRequestInitialAlpha1(pubsub_name="pubsub", topic="streamed")
        self._requests.put(pubsub_pb2.SubscribeTopicEventsRequestAlpha1(initial_request=initial))
        stub = dapr_pb2_grpc.DaprStub(channel)
        self._replies = stub.SubscribeTopicEventsAlpha1(iter(self._requests.get, None), timeout=60)
        assert next(self._replies).HasField("initial_response")
        self._ids: dict[str, str] = {}

    def event(self) -> str:
        event = next(self._replies).event_message
        data: str = event.data.decode()
        self._ids[data] = event.id
        return data

    def answer(self, data: str) -> None:
        processed = pubsub_pb2.SubscribeTopicEventsRequestProcessedAlpha1(
            id=self._ids[data], status=appcallback_pb2.TopicEventResponse()
        )
        self._requests.put(pubsub_pb2.SubscribeTopicEventsRequestAlpha1(event_processed=processed))

    def close(self) -> None:
        self._requests.put(None)
        self._replies.cancel()


@contextmanager
def stream(to: Node) -> Iterator[Subscriber]:
    with grpc.insecure_channel(to.address) as channel:
        subscriber = Subscriber(channel)
        try:
            yield subscriber
        finally:
            subscriber.close()
