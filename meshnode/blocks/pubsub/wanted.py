"""From what resources declare, what the application asks for and what a stream begins with to subscriptions:
checked against the brokers that there are and against their scopes. Does no I/O.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import final

from meshnode.blocks.pubsub.brokers import Broker, Brokers, pubsub_error
from meshnode.blocks.pubsub.publishing import is_raw
from meshnode.blocks.pubsub.routes import Routes
from meshnode.blocks.pubsub.subscription import Kind, TopicSubscription
from meshnode.config.subscription import BulkSubscribe, Rule, Subscription
from meshnode.errors import BadRequestDetail, InvalidArgument, MeshError, Status
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["Wanted", "without_doubles"]

_log = logging.getLogger("meshnode.pubsub")

MAX_IN_FLIGHT = "maxInFlight"
"""Metadata of a subscription: deliveries side by side."""


@final
class Wanted:
    """Makes subscriptions to the brokers as they are at that moment."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers

    def streamed(self, initial: runtime.SubscribeTopicEventsRequestInitialAlpha1) -> TopicSubscription:
        """Raises the error of the reference for a broker that is not there or a topic that is not allowed."""
        broker = self._brokers.find(initial.pubsub_name)
        _check_scope(broker, initial.topic)
        return TopicSubscription(
            broker,
            initial.topic,
            Kind.STREAMING,
            metadata=dict(initial.metadata),
            dead_letter_topic=initial.dead_letter_topic or "",
            raw=is_raw(initial.metadata, broker.name),
            max_in_flight=_max_in_flight(initial.metadata),
        )

    def declared(self, declared: Sequence[Subscription]) -> Iterator[TopicSubscription]:
        """Without those that cannot be, each of which is a line in the log."""
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

    def asked_for(self, asked: Iterable[runtime.TopicSubscription]) -> Iterator[TopicSubscription]:
        """The same for the application's list."""
        for one in asked:
            made = self._asked_for(one)
            if made is not None:
                yield made

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
            _check_scope(broker, topic)
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


def _check_scope(broker: Broker, topic: str) -> None:
    if not broker.scopes.may_subscribe(topic):
        message = f"subscription to topic '{topic}' on pubsub '{broker.name}' is not allowed"
        raise pubsub_error(Status.PERMISSION_DENIED, "FORBIDDEN", message, broker.name, {"topic": topic})


def _max_in_flight(metadata: Mapping[str, str]) -> int | None:
    """Raises `InvalidArgument` for what is no number from 1."""
    for key, value in metadata.items():
        if key.lower() == MAX_IN_FLIGHT.lower():
            if not (value.isascii() and value.isdigit() and 0 < int(value) <= 100_000):
                message = f"{MAX_IN_FLIGHT} must be a whole number from 1 to 100000, not {value!r}"
                raise InvalidArgument(message, BadRequestDetail([(f"metadata.{MAX_IN_FLIGHT}", message)]))
            return int(value)
    return None


def without_doubles(wanted: Iterable[TopicSubscription]) -> list[TopicSubscription]:
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
