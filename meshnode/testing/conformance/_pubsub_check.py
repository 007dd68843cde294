"""What a pub/sub check is made of: what a broker promises, and a check's view of it."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, final

import trio
from attrs import frozen

from meshnode.interfaces import Message, Outcome, PublishRequest, PubSub, PubSubFeature, SubscribeRequest
from meshnode.testing.conformance._check import RUN, bare, within
from meshnode.testing.conformance._readers import Gate, Reader, acknowledge, expect_same, reading

__all__ = [
    "Answer",
    "Gate",
    "OpenGroup",
    "Probe",
    "Promises",
    "PubSubCheck",
    "Reader",
    "Setup",
    "Wildcard",
    "acknowledge",
    "collect",
    "expect_same",
]

OpenGroup = Callable[[str], AbstractAsyncContextManager[PubSub]]
Answer = Callable[[Message], Awaitable[Outcome]]

_probes = itertools.count()


@final
@frozen
class Wildcard:
    """A pattern, what it matches and what it does not; `{}` stands for a name of the check's own."""

    pattern: str = "{}/+/c"
    matching: Sequence[str] = ("{}/a/c", "{}/b/c")
    others: Sequence[str] = ("{}/a/d", "{}/a/b/c")


@final
@frozen
class Promises:
    """What a broker promises; a driver's test says so here, and the checks hold it to that.

    `features`: those the driver reports.
    `groups`: each consumer group receives every message.
    `competing`: the consumers of one group share its messages.
    `durable`: a group keeps what is published while it has no consumer.
    `keeps_unclaimed`: what is published before anybody has subscribed waits for the topic's first group.
    `redelivers`: `RETRY`, a failed and a cancelled delivery make the message come again.
    `side_by_side`: deliveries of one topic run beside each other, up to the limit; one that is to be tried
    again holds up no other.
    `keeps_order`: with one delivery at a time, messages come in the order of publication.
    `order_key`: messages with the same `partitionKey` in their metadata are delivered one after another in
    the order of publication, by whichever consumer of the group, redeliveries included.
    `keeps_content_type`, `keeps_metadata`: they arrive as published (metadata: the names given are there).
    `refused` makes a request, given a topic, that the broker refuses while it takes others.
    """

    features: frozenset[PubSubFeature] = frozenset()
    groups: bool = True
    competing: bool = True
    durable: bool = True
    redelivers: bool = True
    side_by_side: bool = True
    keeps_order: bool = False
    order_key: bool = False
    keeps_unclaimed: bool = False
    keeps_content_type: bool = False
    keeps_metadata: bool = False
    wildcard: Wildcard = Wildcard()
    refused: Callable[[str], PublishRequest] | None = None


@final
@frozen
class Setup:
    """A broker under test.

    `open` takes the name of a consumer group and opens the component as one of its members. Components that
    are open at the same time must see the same broker, as if in several processes. Give them a redelivery
    interval of a fraction of a second, and leases (visibility timeouts, acknowledgement deadlines) that
    outlast `patience`: then only giving back explains that a message comes again.

    `prepare` is called with each topic before its first use. `pass_time` lets time pass for the broker's
    clock. `quiet` is how long the checks wait for what must not come, `patience` for what must.
    """

    open: OpenGroup
    promises: Promises = Promises()
    prepare: Callable[[str], Awaitable[None]] | None = None
    pass_time: Callable[[float], Awaitable[None]] = trio.sleep
    quiet: float = 0.2
    patience: float = 20


@final
class Probe:
    """One check's view of the broker: a topic and a group of its own, and shorthands."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.name = f"conformance-{RUN}-{next(_probes)}"
        self.topic = f"{self.name}-topic"

    def open(self, group: str = "group") -> AbstractAsyncContextManager[PubSub]:
        return self.setup.open(f"{self.name}-{group}")

    async def prepare(self, topic: str) -> None:
        if self.setup.prepare is not None:
            await self.setup.prepare(topic)

    def request(self, data: bytes, topic: str = "", **fields: Any) -> PublishRequest:
        return PublishRequest(topic or self.topic, data, **fields)

    def reading(
        self, broker: PubSub, answer: Answer = acknowledge, *, limit: int | None = None, topic: str = ""
    ) -> AbstractAsyncContextManager[Reader[Message]]:
        request = SubscribeRequest(topic or self.topic, max_in_flight=limit)
        return reading(partial(broker.subscribe, request), answer, self.setup.patience)

    async def publish(self, broker: PubSub, *bodies: bytes, topic: str = "", **fields: Any) -> None:
        """One after another, in this order."""
        with within(self.setup.patience, "publish did not return"):
            for data in bodies:
                await broker.publish(self.request(data, topic, **fields))

    async def nothing_more_comes(self) -> None:
        """No event tells that something will never happen."""
        await trio.sleep(self.setup.quiet)


@final
@frozen
class PubSubCheck:
    """One rule a broker must keep; it applies where the promises say so."""

    name: str
    body: Callable[[Probe], Awaitable[None]]
    needs: frozenset[PubSubFeature] = frozenset()
    when: Callable[[Promises], bool] = lambda _promises: True

    def __str__(self) -> str:
        return self.name

    def applies(self, promises: Promises) -> bool:
        return self.needs <= promises.features and self.when(promises)

    async def run(self, setup: Setup) -> bool:
        """Runs the check; False when the broker does not promise what it is about."""
        if not self.applies(setup.promises):
            return False
        probe = Probe(setup)
        with bare():
            await probe.prepare(probe.topic)
            await self.body(probe)
        return True


def collect(
    *bodies: Callable[[Probe], Awaitable[None]],
    needs: tuple[PubSubFeature, ...] = (),
    when: Callable[[Promises], bool] = lambda _promises: True,
) -> tuple[PubSubCheck, ...]:
    """Checks named after their functions."""
    return tuple(PubSubCheck(body.__name__, body, frozenset(needs), when) for body in bodies)
