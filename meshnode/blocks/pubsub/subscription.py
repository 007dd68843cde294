"""What one subscription is, and the two things that can be at its other end."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import field, frozen

from meshnode.blocks.pubsub.brokers import Broker
from meshnode.blocks.pubsub.events import Event
from meshnode.blocks.pubsub.routes import Routes
from meshnode.config.subscription import BulkSubscribe
from meshnode.interfaces import Message
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["Arrival", "Kind", "Receiver", "Status", "TopicSubscription"]

Status = runtime.TopicEventResponseTopicEventResponseStatus


class Kind(enum.Enum):
    """Who asked for a subscription."""

    DECLARATIVE = "declarative"
    PROGRAMMATIC = "programmatic"
    STREAMING = "streaming"


@frozen
class TopicSubscription:
    """`raw`: messages carry no CloudEvent. `max_in_flight` None leaves it to the component."""

    broker: Broker
    topic: str
    kind: Kind
    routes: Routes = field(factory=Routes)
    metadata: Mapping[str, str] = field(factory=dict)
    dead_letter_topic: str = ""
    bulk: BulkSubscribe | None = None
    raw: bool = False
    max_in_flight: int | None = None

    @property
    def name(self) -> str:
        return f"{self.broker.name}/{self.topic}"


@frozen
class Arrival:
    """One message on its way to the application."""

    message: Message
    event: Event
    path: str
    topic: str


class Receiver(Protocol):
    """Hands events to the application: by callback, or over its stream."""

    async def receive(
        self, subscription: TopicSubscription, arrivals: Sequence[Arrival], seconds: float
    ) -> Sequence[Status]:
        """The application's word on each, in order. `seconds` is what the policy gives it, 0 for no limit.

        Raises what the call raised; then none of them has been processed for sure.
        """
        ...
