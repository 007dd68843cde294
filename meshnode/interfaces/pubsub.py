"""Pub/sub brokers: the Protocol and its value types.

Delivery is at least once. A driver takes a message from the broker, awaits the `deliver` it was given, and
acts on the `Outcome`: `ACK` is final, `RETRY` asks for the message again. A delivery that ends in any other
way (it was cancelled, it raised) has no outcome: the message belongs to the broker again, at once. Nothing is
acknowledged before `deliver` has returned.

Errors: `ComponentUnavailable` (worth a retry), `PubSubError` for the rest, `BulkPublishError` when some of
several messages were refused.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import trio
from attrs import field, frozen

__all__ = [
    "Deliver",
    "Message",
    "Outcome",
    "PubSub",
    "PubSubFeature",
    "PublishRequest",
    "SubscribeRequest",
]


class PubSubFeature(enum.Enum):
    """What a broker can do, with the names Dapr's GetMetadata reports.

    Without `MESSAGE_TTL` the node itself drops what has expired when it is delivered.
    """

    MESSAGE_TTL = "MESSAGE_TTL"
    SUBSCRIBE_WILDCARDS = "SUBSCRIBE_WILDCARDS"
    BULK_PUBSUB = "BULK_PUBSUB"


class Outcome(enum.Enum):
    """What became of a delivered message.

    `ACK`: it is done with (processed, dropped on purpose, or moved to a dead-letter topic) and must not come
    again. `RETRY`: it was not processed; it stays with the broker and comes again after the driver's
    redelivery interval, never in a hot loop.
    """

    ACK = "ack"
    RETRY = "retry"


@frozen
class PublishRequest:
    """One message to publish. `ttl` is in seconds; `metadata` is the caller's, with every name it gave."""

    topic: str
    data: bytes
    content_type: str = ""
    ttl: float | None = None
    metadata: Mapping[str, str] = field(factory=dict)


@frozen
class Message:
    """One message as it came from the broker.

    `metadata` is what the broker says of it (headers, partition, delivery count), with Dapr's names where
    Dapr has one. `position` rises in the order in which the subscription received its messages; a bulk
    delivery is sorted by it.
    """

    topic: str
    data: bytes
    content_type: str = ""
    metadata: Mapping[str, str] = field(factory=dict)
    position: int = 0


Deliver = Callable[[Message], Awaitable[Outcome]]


@frozen
class SubscribeRequest:
    """`metadata` is the subscription's own. `max_in_flight` bounds the deliveries that run side by side;
    None leaves that to the component's metadata.

    `gathered`: the node waits for several deliveries and hands them to the application together, sorted by
    `position` (bulk subscribe). A driver that keeps an order by delivering one message after another may then
    begin several of them; order is kept within a batch and between batches, not across a RETRY.
    """

    topic: str
    metadata: Mapping[str, str] = field(factory=dict)
    max_in_flight: int | None = None
    gathered: bool = False


@runtime_checkable
class PubSub(Protocol):
    """What a pub/sub driver yields. All methods may be called concurrently; cancelling one leaves the
    connection usable.
    """

    @property
    def features(self) -> frozenset[PubSubFeature]: ...

    async def publish(self, request: PublishRequest) -> None:
        """Returns once the broker has taken the message for good, as far as it is able to promise that."""
        ...

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        """Not a transaction: all are tried, in order, then one `BulkPublishError` names those that failed.
        `ComponentUnavailable` when none can have been taken. All requests are for one topic.
        """
        ...

    async def subscribe(
        self,
        request: SubscribeRequest,
        deliver: Deliver,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Deliver the topic's messages until `stop` is set or the call is cancelled.

        Calls `task_status.started()` when a message published from then on will be delivered. Once `stop` is
        set no further message is taken; those under way are finished and acknowledged, what was taken but
        not begun goes back, then the call returns. Cancelled, it ends at once and gives back at once what
        was under way, so that another consumer need not wait for a timeout; no consumer stays behind at the
        broker. A lost connection is the driver's to renew where acknowledgements survive it; where they do
        not it raises `ComponentUnavailable`, and the node subscribes again after a pause.
        """
        ...

    async def ping(self) -> None:
        """Raises `ComponentUnavailable` when the broker does not answer."""
        ...
