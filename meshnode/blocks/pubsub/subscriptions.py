"""A node's subscriptions: what its resources declare, what its application asks for at start, and the
streams it opens. Each runs on its own; one that fails is tried again and troubles no other.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import trio

from meshnode.app import AppChannel
from meshnode.blocks.call import Call, LiveCalls
from meshnode.blocks.keeping import ask_app, first_of
from meshnode.blocks.pubsub.brokers import Broker, Brokers, pubsub_error
from meshnode.blocks.pubsub.callback import CallbackReceiver
from meshnode.blocks.pubsub.delivery import Delivery
from meshnode.blocks.pubsub.keeping import keep_subscribed
from meshnode.blocks.pubsub.publishing import Publishing, is_raw
from meshnode.blocks.pubsub.routes import Routes
from meshnode.blocks.pubsub.streaming import EventStream, StreamReceiver, initial_request
from meshnode.blocks.pubsub.subscription import Kind, Receiver, TopicSubscription
from meshnode.config.subscription import BulkSubscribe, Rule, Subscription
from meshnode.errors import BadRequestDetail, InvalidArgument, MeshError, Status
from meshnode.resiliency import Policies
from meshnode.transport import GRPCError
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty

__all__ = ["Subscriptions"]

_log = logging.getLogger("meshnode.pubsub")

MAX_IN_FLIGHT = "maxInFlight"
"""Metadata of a subscription: deliveries side by side."""


@final
class Subscriptions:
    """`run` holds the declared and programmatic ones; `stream` is the streaming API."""

    def __init__(
        self,
        brokers: Brokers,
        *,
        app: AppChannel,
        policies: Policies,
        publishing: Publishing,
        live: LiveCalls,
        wall: Callable[[], float],
        rng: random.Random,
        stop: trio.Event,
    ) -> None:
        self._brokers = brokers
        self._app = app
        self._policies = policies
        self._publishing = publishing
        self._live = live
        self._wall = wall
        self._rng = rng
        self._stop = stop
        self._callback = CallbackReceiver(app, rng)
        self._active: list[TopicSubscription] = []

    @property
    def active(self) -> Sequence[TopicSubscription]:
        """What is subscribed to now."""
        return tuple(self._active)

    async def run(self, declared: Sequence[Subscription]) -> None:
        """Subscribe to what is declared and what the application asks for; return when all have ended,
        which is after `stop`.
        """
        first = _without_doubles(self._declared(declared))
        async with trio.open_nursery() as nursery:
            for subscription in first:
                nursery.start_soon(self._hold, subscription)
            # What is declared goes before what the application asks for, as in Dapr, and waits for nothing.
            for subscription in _without_doubles([*first, *await self._programmatic()])[len(first) :]:
                nursery.start_soon(self._hold, subscription)

    async def _hold(self, subscription: TopicSubscription) -> None:
        with self._listed(subscription):
            async with trio.open_nursery() as nursery:
                delivery = self._delivery(subscription, self._callback, self._stop)
                await nursery.start(keep_subscribed, subscription, delivery, self._stop)
                text = "app is subscribed to topic %s of pubsub %s"
                _log.info(text, subscription.topic, subscription.broker.name)

    async def stream(self, stream: EventStream, call: Call) -> None:
        """One streaming subscription, from its initial request to its end."""
        initial = await self._initial(stream)
        broker = self._brokers.find(initial.pubsub_name)
        self._check_scope(broker, initial.topic)
        subscription = TopicSubscription(
            broker,
            initial.topic,
            Kind.STREAMING,
            metadata=dict(initial.metadata),
            dead_letter_topic=initial.dead_letter_topic or "",
            raw=is_raw(initial.metadata, broker.name),
            max_in_flight=_max_in_flight(initial.metadata),
        )
        call.target = subscription.name
        receiver = StreamReceiver(stream)
        async with trio.open_nursery() as nursery:
            delivery = self._delivery(subscription, receiver, self._stop)

            async def hold(*, task_status: trio.TaskStatus[None]) -> None:
                await keep_subscribed(
                    subscription, delivery, self._stop, task_status=task_status, patient=False
                )
                nursery.cancel_scope.cancel()

            await nursery.start(hold)
            if not self._stop.is_set():
                await receiver.confirm()
                with self._listed(subscription):
                    await receiver.listen()
                nursery.cancel_scope.cancel()
        self._check_stop()

    async def _initial(self, stream: EventStream) -> runtime.SubscribeTopicEventsRequestInitialAlpha1:
        """What the stream asks for, as soon as it does."""
        found: list[runtime.SubscribeTopicEventsRequestInitialAlpha1] = []

        async def receive() -> None:
            found.append(await initial_request(stream))

        await first_of(receive, self._stop.wait)
        self._check_stop()
        return found[0]

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise MeshError("the node is shutting down", status=Status.UNAVAILABLE)

    def _delivery(self, subscription: TopicSubscription, receiver: Receiver, stop: trio.Event) -> Delivery:
        return Delivery(
            subscription,
            receiver,
            app=self._app,
            publishing=self._publishing,
            live=self._live,
            wall=self._wall,
            rng=self._rng,
            stop=stop,
        )

    def _declared(self, declared: Sequence[Subscription]) -> Iterator[TopicSubscription]:
        for one in declared:
            made = self._made(
                Kind.DECLARATIVE,
                f"Subscription {one.name}",
                one.pubsub_name,
                one.topic,
                one.metadata,
                one.dead_letter_topic,
                one.bulk,
                one.rules,
                one.default_path or None,
            )
            if made is not None:
                yield made

    async def _programmatic(self) -> list[TopicSubscription]:
        if not self._app.configured:
            return []
        policy = self._policies.built_in("DaprBuiltInInitializationRetries")
        answer = await ask_app("topic list", self._app, self._list_topics, policy, self._stop)
        if answer is None:
            return []
        made = [self._asked_for(one) for one in answer.subscriptions]
        return [one for one in made if one is not None]

    async def _list_topics(self) -> runtime.ListTopicSubscriptionsResponse:
        try:
            return await runtime.AppCallbackStub(self._app.channel).list_topic_subscriptions(
                Empty(), metadata=self._app.own_metadata
            )
        except GRPCError as error:
            if error.status is not Status.UNIMPLEMENTED:
                raise
            _log.info("pubsub subscriptions: gRPC app does not implement ListTopicSubscriptions")
            return runtime.ListTopicSubscriptionsResponse()

    def _asked_for(self, one: runtime.TopicSubscription) -> TopicSubscription | None:
        routes = one.routes if one.routes is not None else runtime.TopicRoutes()
        rules = tuple(Rule(match=rule.match, path=rule.path) for rule in routes.rules)
        bulk = one.bulk_subscribe
        return self._made(
            Kind.PROGRAMMATIC,
            f"the application's subscription to {one.topic}",
            one.pubsub_name,
            one.topic,
            one.metadata,
            one.dead_letter_topic,
            None
            if bulk is None
            else BulkSubscribe(
                enabled=bulk.enabled,
                max_messages=bulk.max_messages_count,
                max_await_ms=bulk.max_await_duration_ms,
            ),
            rules,
            routes.default if routes.default or not rules else None,
        )

    def _made(
        self,
        kind: Kind,
        what: str,
        pubsub: str,
        topic: str,
        metadata: Mapping[str, str],
        dead_letter_topic: str,
        bulk: BulkSubscribe | None,
        rules: Sequence[Rule],
        default: str | None,
    ) -> TopicSubscription | None:
        """The subscription, or None and a line in the log for one that cannot be."""
        try:
            broker = self._brokers.find(pubsub)
            self._check_scope(broker, topic)
            return TopicSubscription(
                broker,
                topic,
                kind,
                routes=Routes(rules, default),
                metadata=dict(metadata),
                dead_letter_topic=dead_letter_topic,
                bulk=bulk if bulk is not None and bulk.enabled else None,
                raw=is_raw(metadata, pubsub),
                max_in_flight=_max_in_flight(metadata),
            )
        except (MeshError, ValueError) as error:
            _log.error("%s is left out: %s", what, error)
            return None

    def _check_scope(self, broker: Broker, topic: str) -> None:
        if not broker.scopes.may_subscribe(topic):
            message = f"subscription to topic '{topic}' on pubsub '{broker.name}' is not allowed"
            raise pubsub_error(Status.PERMISSION_DENIED, "FORBIDDEN", message, broker.name, {"topic": topic})

    @contextmanager
    def _listed(self, subscription: TopicSubscription) -> Iterator[None]:
        self._active.append(subscription)
        try:
            yield
        finally:
            self._active.remove(subscription)


def _max_in_flight(metadata: Mapping[str, str]) -> int | None:
    """Raises `InvalidArgument` for what is no number from 1."""
    for key, value in metadata.items():
        if key.lower() == MAX_IN_FLIGHT.lower():
            if not (value.isascii() and value.isdigit() and 0 < int(value) <= 100_000):
                message = f"{MAX_IN_FLIGHT} must be a whole number from 1 to 100000, not {value!r}"
                raise InvalidArgument(message, BadRequestDetail([(f"metadata.{MAX_IN_FLIGHT}", message)]))
            return int(value)
    return None


def _without_doubles(wanted: Iterable[TopicSubscription]) -> list[TopicSubscription]:
    """One per topic."""
    kept: dict[tuple[str, str], TopicSubscription] = {}
    for one in wanted:
        key = (one.broker.name, one.topic)
        if key in kept:
            _log.warning(
                "topic %s of pubsub %s is subscribed to twice; the first one counts", one.topic, key[0]
            )
            continue
        kept[key] = one
    return list(kept.values())
