"""Checks of order, for the brokers that promise one."""

from __future__ import annotations

from collections import defaultdict
from typing import final

import trio

from meshnode.interfaces import Message, Outcome, PubSub
from meshnode.testing.conformance._check import expect, within
from meshnode.testing.conformance._pubsub_check import Gate, Probe, collect

__all__ = ["CHECKS"]

_KEY = "partitionKey"


@final
class _Keys:
    """Answers for any number of subscriptions, and watches that each key is worked off in order.

    Data is `key number`; every third message of a key is to be tried again the first time it comes.
    """

    def __init__(self, keys: str, each: int) -> None:
        self.bodies = [f"{key} {number}".encode() for number in range(each) for key in keys]
        self.finished: dict[str, list[int]] = defaultdict(list)
        self.complete = trio.Event()
        self._tried: set[bytes] = set()
        self._busy: set[str] = set()

    async def publish(self, probe: Probe, broker: PubSub) -> None:
        for data in self.bodies:
            key = data.decode().split()[0]
            await probe.publish(broker, data, metadata={_KEY: key})

    async def answer(self, message: Message) -> Outcome:
        key, number = message.data.decode().split()
        expect(key not in self._busy, f"two messages of key {key} at once")
        due = len(self.finished[key])
        expect(int(number) == due, f"of key {key} number {number} came, and {due} is not done yet")
        self._busy.add(key)
        try:
            await trio.sleep(0.001)  # long enough for a second delivery to run into this one
        finally:
            self._busy.discard(key)
        if int(number) % 3 == 0 and message.data not in self._tried:
            self._tried.add(message.data)
            return Outcome.RETRY
        self.finished[key].append(int(number))
        if sum(map(len, self.finished.values())) == len(self.bodies):
            self.complete.set()
        return Outcome.ACK


async def one_at_a_time_keeps_the_order(probe: Probe) -> None:
    bodies = [b"%d" % number for number in range(30)]
    async with probe.open() as broker, probe.reading(broker, limit=1) as reader:
        await probe.publish(broker, *bodies[:20])
        await broker.bulk_publish([probe.request(data) for data in bodies[20:]])
        await reader.has_finished(30)
        expect(reader.received == bodies, f"out of order: {reader.received}")


async def each_key_keeps_its_order(probe: Probe) -> None:
    """Across redeliveries, while other keys go on."""
    keys = _Keys("abc", 8)
    async with probe.open() as broker, probe.reading(broker, keys.answer, limit=8):
        await keys.publish(probe, broker)
        with within(probe.setup.patience, f"{len(keys.bodies)} messages with keys were not finished"):
            await keys.complete.wait()


async def each_key_keeps_its_order_across_consumers(probe: Probe) -> None:
    keys = _Keys("abcd", 6)
    async with (
        probe.open() as one,
        probe.open() as two,
        probe.reading(one, keys.answer, limit=4),
        probe.reading(two, keys.answer, limit=4),
    ):
        await keys.publish(probe, one)
        with within(probe.setup.patience, f"{len(keys.bodies)} messages with keys were not finished"):
            await keys.complete.wait()


async def a_key_keeps_its_order_when_its_consumer_is_cancelled(probe: Probe) -> None:
    bodies = [b"%d" % number for number in range(5)]
    async with (
        probe.open() as one,
        probe.open() as two,
        probe.reading(one, Gate(), limit=3) as first,
    ):
        await probe.publish(one, *bodies, metadata={_KEY: "k"})
        await first.has(1)
        async with probe.reading(two) as second:
            await first.cancel()
            await second.has_finished(5)
            expect(first.received == bodies[:1], "its successors came before the first was done")
            expect(second.received == bodies, f"out of order: {second.received}")


CHECKS = (
    *collect(one_at_a_time_keeps_the_order, when=lambda promises: promises.keeps_order),
    *collect(each_key_keeps_its_order, when=lambda promises: promises.order_key and promises.redelivers),
    *collect(
        each_key_keeps_its_order_across_consumers,
        a_key_keeps_its_order_when_its_consumer_is_cancelled,
        when=lambda promises: promises.order_key and promises.redelivers and promises.competing,
    ),
)
