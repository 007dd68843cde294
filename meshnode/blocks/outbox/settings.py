"""Which state stores have an outbox: the `outbox…` metadata of their components."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from meshnode.components import Opened
from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import Feature

__all__ = ["OutboxSettings", "outbox_settings"]

_PUBSUB, _TOPIC = "outboxPublishPubsub", "outboxPublishTopic"
_INTERNAL_PUBSUB, _INTERNAL_TOPIC = "outboxPubsub", "outboxInternalTopic"
_DISCARD = "outboxDiscardWhenMissingState"
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})


@frozen
class OutboxSettings:
    """One store's outbox. Events go to `topic` of `pubsub`; internal messages to `internal_topic` of
    `internal_pubsub`.
    """

    store: str
    pubsub: str
    topic: str
    internal_pubsub: str
    internal_topic: str
    discard: bool


def outbox_settings(opened: Sequence[Opened], app_id: str, namespace: str) -> dict[str, OutboxSettings]:
    """For each state store that has an outbox, by its name.

    Raises `ConfigError`: a name without its other half, a pub/sub component that is not there, a store
    without transactions.
    """
    brokers = {one.planned.component.name for one in opened if one.planned.kind == "pubsub"}
    found: dict[str, OutboxSettings] = {}
    problems: list[Problem] = []
    for one in opened:
        if one.planned.kind != "state" or one.instance is None:
            continue
        pubsub, topic = one.reserved.get(_PUBSUB, ""), one.reserved.get(_TOPIC, "")
        if not pubsub and not topic:
            continue
        internal = one.reserved.get(_INTERNAL_PUBSUB, "") or pubsub
        problems.extend(_problems(one, brokers, {_PUBSUB: pubsub, _TOPIC: topic, _INTERNAL_PUBSUB: internal}))
        name = one.planned.component.name
        found[name] = OutboxSettings(
            name,
            pubsub,
            topic,
            internal,
            one.reserved.get(_INTERNAL_TOPIC, "") or f"{namespace}{app_id}{topic}outbox",
            one.reserved.get(_DISCARD, "").strip().lower() in _TRUE,
        )
    if problems:
        raise ConfigError(problems)
    return found


def _problems(one: Opened, brokers: set[str], given: dict[str, str]) -> list[Problem]:
    component = one.planned.component

    def problem(name: str, message: str, remedy: str = "") -> Problem:
        item = component.get(name)
        line = item.line if item is not None else component.source.line
        return Problem(message, component.source.file, line, f"spec.metadata.{name}", remedy)

    remedy = f"name {_PUBSUB} and {_TOPIC}"
    found = [
        problem(name, "is missing: an outbox needs both", remedy)
        for name in (_PUBSUB, _TOPIC)
        if not given[name]
    ]
    found += [
        problem(name, f'there is no pub/sub component "{given[name]}" for this application')
        for name in (_PUBSUB, _INTERNAL_PUBSUB)
        if given[name] and given[name] not in brokers
    ]
    if Feature.TRANSACTIONAL not in one.instance.features:
        found.append(problem(_PUBSUB, f"{component.type} has no transactions, which an outbox needs"))
    return list(dict.fromkeys(found))
