"""The consumer at the server that a subscription reads from: found, made, made again.

Without `durableName` each subscription makes a consumer of its own and deletes it. With it the consumer is
shared and stays; what exists is used as it is, pull or push, so that a daprd may have made it. (Dapr's
component makes push consumers. A new one is of that kind where the metadata asks for what only those have: a
queue group, flow control, heartbeats, a rate, no acknowledgements. Otherwise it is a pull consumer, which
takes no more than it can begin.)

A consumer reads one subject. Dapr's component can therefore use a durable name for one topic only; here each
further topic has a consumer with the topic in its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, final

from attrs import frozen

from meshnode.errors import PubSubError, Status
from meshnode_jetstream._connection import ApiError, Connection, translated
from meshnode_jetstream._options import Options

__all__ = ["Consumer", "config", "durable_for", "find_stream", "is_push", "make", "named"]

_NANO = 1_000_000_000
_POLICIES = {"sequence": "by_start_sequence", "time": "by_start_time"}
_FORGOTTEN_AFTER = 300
"""Seconds after which the server deletes the consumer of a subscription that died without saying so."""
_BEAT = 5
"""Seconds between the heartbeats that flow control needs, where the metadata does not say."""


@final
@frozen
class Consumer:
    """What the server says of it. Times are in seconds."""

    stream: str
    name: str
    durable: bool
    deliver_subject: str
    deliver_group: str
    ack_policy: str
    ack_wait: float
    pauses: tuple[float, ...]
    max_deliver: int
    most_requested: int
    last_delivered: int
    bound: bool

    @property
    def pulls(self) -> bool:
        return not self.deliver_subject

    def lease(self, delivered: int) -> float:
        """For how long a message is ours that is delivered for that time (1 is the first)."""
        if not self.pauses:
            return self.ack_wait
        return self.pauses[min(delivered, len(self.pauses)) - 1]


def named(info: Mapping[str, Any]) -> Consumer:
    """Out of the server's answer."""
    found = info["config"]
    return Consumer(
        stream=info["stream_name"],
        name=info["name"],
        durable=bool(found.get("durable_name")),
        deliver_subject=found.get("deliver_subject", ""),
        deliver_group=found.get("deliver_group", ""),
        ack_policy=found.get("ack_policy", "none"),
        ack_wait=found.get("ack_wait", 30 * _NANO) / _NANO,
        pauses=tuple([pause / _NANO for pause in found.get("backoff") or ()]),
        max_deliver=found.get("max_deliver", -1),
        most_requested=found.get("max_batch", 0),
        last_delivered=info.get("delivered", {}).get("stream_seq", 0),
        bound=bool(info.get("push_bound")),
    )


def is_push(options: Options) -> bool:
    """Whether the metadata asks for what only a push consumer has."""
    only = (options.queue_group_name, options.flow_control, options.heartbeat, options.rate_limit)
    return any(only) or options.ack_policy == "none"


def config(options: Options, topic: str, name: str, inbox: str, start: int | None) -> dict[str, Any]:
    """What a new consumer is to be; `start` is where one goes on that was lost."""
    found: dict[str, Any] = {
        "name": name,
        "durable_name": name if options.durable_name else None,
        "filter_subject": topic,
        "deliver_policy": _POLICIES.get(options.deliver_policy, options.deliver_policy),
        "opt_start_seq": options.start_sequence or None,
        "opt_start_time": _time(options.start_time),
        "ack_policy": options.ack_policy,
        "ack_wait": _nanoseconds(options.ack_wait.total_seconds() if options.ack_wait else None),
        "max_deliver": options.max_deliver or None,
        "backoff": [_nanoseconds(pause) for pause in options.pauses] or None,
        "max_ack_pending": options.max_ack_pending or None,
        "num_replicas": options.replicas,
        "mem_storage": options.memory_storage or None,
        "replay_policy": "instant",
        "inactive_threshold": None if options.durable_name else _FORGOTTEN_AFTER * _NANO,
    }
    if start is not None:
        found |= {"deliver_policy": "by_start_sequence", "opt_start_seq": start, "opt_start_time": None}
    if is_push(options):
        found |= _push(options, inbox)
    return {key: value for key, value in found.items() if value is not None}


def _push(options: Options, inbox: str) -> dict[str, Any]:
    # What is not acknowledged has no other back-pressure.
    controlled = options.flow_control or options.ack_policy == "none"
    beat = options.heartbeat.total_seconds() if options.heartbeat else _BEAT if controlled else None
    return {
        "deliver_subject": inbox,
        "deliver_group": options.queue_group_name or None,
        "flow_control": controlled or None,
        "idle_heartbeat": _nanoseconds(beat),
        "rate_limit_bps": options.rate_limit or None,
    }


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * _NANO)


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def durable_for(name: str, topic: str) -> str:
    """The consumer's name for a topic that does not have the durable name to itself."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", topic)[:60]
    return f"{name}_{readable}_{sha256(topic.encode()).hexdigest()[:8]}"


async def find_stream(connection: Connection, topic: str) -> str:
    """The stream that holds the subject. Dapr does not make streams, nor do we."""
    answer = await _asked(connection, "STREAM.NAMES", {"subject": topic})
    names: list[str] = answer.get("streams") or []
    if not names:
        message = f"{connection.where}: no stream holds the subject {topic}; make one that does"
        raise PubSubError(message, status=Status.NOT_FOUND)
    return names[0]


async def make(
    connection: Connection,
    options: Options,
    stream: str,
    topic: str,
    name: str,
    inbox: str,
    start: int | None,
) -> Consumer:
    """The consumer of that name for the topic: as it is, or new."""
    if not options.durable_name:
        return await _create(connection, stream, config(options, topic, name, inbox, start))
    for candidate in (options.durable_name, durable_for(options.durable_name, topic)):
        info = await look_up(connection, stream, candidate)
        if info is None:
            try:
                return await _create(connection, stream, config(options, topic, candidate, inbox, None))
            except PubSubError:
                # Another subscriber was faster, or the server does not want what the metadata says.
                info = await look_up(connection, stream, candidate)
                if info is None:
                    raise
        if info["config"].get("filter_subject", "") == topic:
            return _checked(options, named(info))
    raise PubSubError(
        f"consumer {durable_for(options.durable_name, topic)} reads another subject than {topic}"
    )


def _checked(options: Options, consumer: Consumer) -> Consumer:
    """A push consumer serves the members of one group, or a single subscriber."""
    if not consumer.pulls and consumer.deliver_group != options.queue_group_name:
        own, its = options.queue_group_name or "none", consumer.deliver_group or "none"
        message = f"consumer {consumer.name} has the queue group {its}, and queueGroupName is {own}"
        raise PubSubError(message)
    return consumer


async def look_up(connection: Connection, stream: str, name: str) -> Any:
    """What the server says of the consumer; None if there is none. Raises `ComponentError`."""
    try:
        return await connection.api(f"CONSUMER.INFO.{stream}.{name}")
    except ApiError as error:
        if error.code == 404:
            return None
        raise translated(error, connection.where) from error


async def _create(connection: Connection, stream: str, wanted: Mapping[str, Any]) -> Consumer:
    subject = f"CONSUMER.CREATE.{stream}.{wanted['name']}.{wanted['filter_subject']}"
    # "create" and not "create or update": an existing one may be at work for another topic.
    request = {"stream_name": stream, "config": wanted, "action": "create"}
    return named(await _asked(connection, subject, request))


async def _asked(connection: Connection, subject: str, request: Any) -> Any:
    try:
        return await connection.api(subject, request)
    except ApiError as error:
        raise translated(error, connection.where) from error
