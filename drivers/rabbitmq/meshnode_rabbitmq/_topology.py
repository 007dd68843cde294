"""What is declared at the broker, in the order in which it is: the same names and arguments as daprd's, for
the broker refuses a second declaration that differs. Pure, but for `declare`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, final

from aiormq.abc import AbstractChannel
from attrs import field, frozen

from meshnode_rabbitmq._binding_options import BindingOptions
from meshnode_rabbitmq._pubsub_options import PubSubOptions

__all__ = [
    "Bound",
    "Exchange",
    "Part",
    "Queue",
    "binding_queue",
    "declare",
    "queue_name",
    "subscription",
    "topic_exchange",
]

_QUEUE_TYPES = ("classic", "quorum")
_YES = frozenset({"y", "yes", "true", "t", "on", "1"})


@final
@frozen
class Exchange:
    name: str
    kind: str
    durable: bool
    auto_delete: bool
    passive: bool = False


@final
@frozen
class Queue:
    name: str
    durable: bool
    auto_delete: bool
    exclusive: bool = False
    passive: bool = False
    arguments: Mapping[str, Any] = field(factory=dict, hash=False)


@final
@frozen
class Bound:
    """Messages with this routing key go from the exchange to the queue."""

    queue: str
    exchange: str
    routing_key: str = ""


Part: TypeAlias = Exchange | Queue | Bound


async def declare(channel: AbstractChannel, part: Part) -> None:
    """On the asyncio side."""
    if isinstance(part, Exchange):
        await channel.exchange_declare(
            part.name,
            exchange_type=part.kind,
            durable=part.durable,
            auto_delete=part.auto_delete,
            passive=part.passive,
        )
    elif isinstance(part, Queue):
        await channel.queue_declare(
            part.name,
            durable=part.durable,
            auto_delete=part.auto_delete,
            exclusive=part.exclusive,
            passive=part.passive,
            arguments=dict(part.arguments),
        )
    else:
        await channel.queue_bind(part.queue, part.exchange, part.routing_key)


def topic_exchange(options: PubSubOptions, topic: str) -> Exchange:
    return Exchange(
        topic,
        options.exchange_kind,
        options.durable,
        options.deleted_when_unused,
        passive=options.exchange_declare_mode == "passive",
    )


def queue_name(options: PubSubOptions, app_id: str, topic: str, metadata: Mapping[str, str]) -> str:
    return metadata.get("queueName") or f"{options.consumer_id or app_id}-{topic}"


def subscription(
    options: PubSubOptions, topic: str, queue: str, metadata: Mapping[str, str]
) -> Sequence[Part]:
    """Raises `ValueError` where the subscription's metadata says something impossible."""
    passive = options.queue_declare_mode == "passive"
    arguments = _lengths(options)
    parts: list[Part] = [topic_exchange(options, topic)]
    if options.enable_dead_letter:
        arguments["x-dead-letter-exchange"] = f"dlx-{queue}"
        parts += _dead_letter(options, queue, passive)
    arguments |= _wanted(metadata)
    durable, auto_delete = options.durable, options.deleted_when_unused
    parts.append(Queue(queue, durable, auto_delete, passive=passive, arguments=arguments))
    if not passive:
        parts += [Bound(queue, topic, key) for key in metadata.get("routingKey", "").split(",")]
    return parts


def _lengths(options: PubSubOptions) -> dict[str, Any]:
    limits = {"x-max-length": options.max_len, "x-max-length-bytes": options.max_len_bytes}
    return {name: value for name, value in limits.items() if value}


def _dead_letter(options: PubSubOptions, queue: str, passive: bool) -> list[Part]:
    dlx, dlq, auto_delete = f"dlx-{queue}", f"dlq-{queue}", options.deleted_when_unused
    # Lazy: what nobody may ever read is not to fill the broker's memory.
    arguments = {**_lengths(options), "x-queue-mode": "lazy"}
    owned = options.exchange_declare_mode == "passive"
    parts: list[Part] = [
        Exchange(dlx, "fanout", True, auto_delete, passive=owned),
        Queue(dlq, True, auto_delete, passive=passive, arguments=arguments),
    ]
    return parts if passive else [*parts, Bound(dlq, dlx)]


def _wanted(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the subscription itself asks of its queue."""
    kind = metadata.get("queueType") or "classic"
    if kind not in _QUEUE_TYPES:
        raise ValueError(f"queueType: {kind!r} is neither {' nor '.join(_QUEUE_TYPES)}")
    arguments: dict[str, Any] = {"x-queue-type": kind}
    if metadata.get("singleActiveConsumer", "").strip().lower() in _YES:
        arguments["x-single-active-consumer"] = True
    if metadata.get("maxPriority"):
        arguments["x-max-priority"] = min(_number(metadata, "maxPriority"), 255)
    for name, argument in (("maxLen", "x-max-length"), ("maxLenBytes", "x-max-length-bytes")):
        if metadata.get(name):
            arguments[argument] = _number(metadata, name)
    return arguments


def _number(metadata: Mapping[str, str], name: str) -> int:
    text = metadata[name].strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(f"{name}: {metadata[name]!r} is no whole number")
    return int(text)


def binding_queue(options: BindingOptions) -> Queue:
    arguments: dict[str, Any] = {}
    if options.ttl_in_seconds is not None:
        arguments["x-message-ttl"] = round(options.ttl_in_seconds.total_seconds() * 1000)
    if options.max_priority is not None:
        arguments["x-max-priority"] = options.max_priority
    return Queue(
        options.queue_name,
        options.durable,
        options.delete_when_unused,
        exclusive=options.exclusive,
        arguments=arguments,
    )
