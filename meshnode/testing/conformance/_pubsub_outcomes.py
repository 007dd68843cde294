"""Checks of what becomes of a delivered message, and of how a subscription ends."""

from __future__ import annotations

import trio

from meshnode.errors import ComponentError
from meshnode.interfaces import Message, Outcome
from meshnode.testing.conformance._check import expect, within
from meshnode.testing.conformance._pubsub_check import Gate, Probe, Promises, collect, expect_same

__all__ = ["CHECKS"]


class _Mishap(Exception):
    """What a delivery may raise."""


async def acknowledged_is_final(probe: Probe) -> None:
    """Not for the next subscription, and not for the next life of the component."""
    bodies = [b"%d" % number for number in range(5)]
    async with probe.open() as broker:
        async with probe.reading(broker) as reader:
            await probe.publish(broker, *bodies)
            await reader.has_finished(5)
        async with probe.reading(broker) as again:
            await probe.publish(broker, b"next")
            await again.has(1)
            await probe.nothing_more_comes()
            again.expect_once([b"next"], "after all was acknowledged")
    async with probe.open() as broker, probe.reading(broker) as reopened:
        await probe.publish(broker, b"last")
        await reopened.has(1)
        await probe.nothing_more_comes()
        reopened.expect_once([b"last"], "after the component was opened again")


async def retry_comes_again(probe: Probe) -> None:
    """As often as it is asked for, unchanged, and not after it was acknowledged."""

    async def third_time(_message: Message) -> Outcome:
        return Outcome.ACK if len(reader.messages) == 3 else Outcome.RETRY

    async with probe.open() as broker, probe.reading(broker, third_time) as reader:
        await probe.publish(broker, b"stubborn")
        await reader.has_finished(1)
        await probe.nothing_more_comes()
        expect(reader.received == [b"stubborn"] * 3, f"expected 3 deliveries, got {reader.received}")


async def retry_holds_up_nobody(probe: Probe) -> None:
    """A message that fails until all others are done is no obstacle to them."""
    good = [b"%d" % number for number in range(12)]

    async def answer(message: Message) -> Outcome:
        done = message.data != b"bad" or len(reader.finished) == len(good)
        return Outcome.ACK if done else Outcome.RETRY

    async with probe.open() as broker, probe.reading(broker, answer, limit=4) as reader:
        await probe.publish(broker, b"bad", *good)
        await reader.has_finished(len(good) + 1)
        expect(reader.finished[-1] == b"bad", "the failing message is done last")


async def retry_survives_the_end_of_the_subscription(probe: Probe) -> None:
    async def never(_message: Message) -> Outcome:
        return Outcome.RETRY

    async with probe.open() as broker:
        async with probe.reading(broker, never) as reader:
            await probe.publish(broker, b"unprocessed")
            await reader.has(1)
        async with probe.reading(broker) as again:
            await again.has_finished(1)
            expect(again.received[0] == b"unprocessed", "what was to be tried again")


async def a_delivery_that_raises_gives_back(probe: Probe) -> None:
    """The subscription may end of it (the node subscribes again) or go on."""
    answers: list[Outcome | None] = []

    async def fails_once(_message: Message) -> Outcome:
        if not answers:
            answers.append(None)
            raise _Mishap("of the delivery")
        answers.append(Outcome.ACK)
        return Outcome.ACK

    async with probe.open() as broker:
        try:
            async with probe.reading(broker, fails_once) as reader:
                await probe.publish(broker, b"1")
                await reader.has_finished(1)
        except BaseExceptionGroup as group:
            _, rest = group.split((_Mishap, ComponentError))
            if rest is not None:
                raise rest from None
        if Outcome.ACK not in answers:
            async with probe.reading(broker, fails_once) as again:
                await again.has_finished(1)


async def cancelled_delivery_goes_to_another_consumer(probe: Probe) -> None:
    """At once: the other consumer waits for less than any lease. What was fetched and not begun, too."""
    bodies = [b"%d" % number for number in range(6)]
    async with (
        probe.open() as one,
        probe.open() as two,
        probe.reading(one, Gate(), limit=3) as first,
    ):
        await probe.publish(one, *bodies)
        await first.has(1)
        async with probe.reading(two) as second:
            await first.cancel()
            await second.until(
                lambda: set(second.finished) == set(bodies), "delivery of what a cancelled consumer had"
            )
            await probe.nothing_more_comes()
            second.expect_once(bodies, "the other consumer of the group")


async def cancelled_delivery_comes_to_the_next_subscription(probe: Probe) -> None:
    bodies = [b"%d" % number for number in range(6)]
    async with probe.open() as broker:
        async with probe.reading(broker, Gate(), limit=3) as first:
            await probe.publish(broker, *bodies)
            await first.has(1)
            await first.cancel()
        async with probe.reading(broker) as second:
            await second.until(
                lambda: set(second.finished) == set(bodies), "delivery after a cancelled subscription"
            )


async def cancelled_subscriptions_leave_no_consumer_behind(probe: Probe) -> None:
    """None of many cancelled subscriptions swallows what comes later."""
    bodies = [b"%d" % number for number in range(12)]
    async with probe.open() as broker:
        for _ in range(4):
            async with probe.reading(broker) as idle:
                await idle.cancel()
        async with probe.reading(broker) as reader:
            await probe.publish(broker, *bodies)
            await reader.has_finished(12)
            reader.expect_once(bodies, "after cancelled subscriptions")


async def cancelling_while_it_starts_is_harmless(probe: Probe) -> None:
    async with probe.open() as broker:
        for turn in range(6):
            with within(probe.setup.patience, "subscribe did not end of its cancellation"):
                async with trio.open_nursery() as nursery:

                    async def subscribe(nursery: trio.Nursery = nursery) -> None:
                        async with probe.reading(broker):
                            nursery.cancel_scope.cancel()

                    nursery.start_soon(subscribe)
                    for _ in range(turn):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
        async with probe.reading(broker) as reader:
            await probe.publish(broker, b"after")
            await reader.has_finished(1)


async def stop_finishes_what_is_under_way(probe: Probe) -> None:
    """And takes no more, acknowledges it, and leaves the rest for the next subscription."""
    bodies = [b"%d" % number for number in range(8)]
    gate = Gate()
    async with probe.open() as broker:
        async with probe.reading(broker, gate, limit=2) as reader:
            await probe.publish(broker, *bodies)
            await reader.has(1)
            reader.stop()
            await probe.nothing_more_comes()
            expect(not reader.has_ended, "the subscription ended before its deliveries")
            begun = reader.received.copy()
            gate.open()
            await reader.ended()
            reader.expect_once(begun, "deliveries that began after the stop")
            expect(len(begun) <= 2, f"{len(begun)} deliveries at once with a limit of 2")
            expect(sorted(reader.finished) == sorted(begun), "what was under way was not finished")
        if probe.setup.promises.durable:
            rest = [data for data in bodies if data not in begun]
            async with probe.reading(broker) as again:
                await again.has_finished(len(rest))
                await probe.nothing_more_comes()
                again.expect_once(rest, "the subscription after the one that was stopped")


async def stop_ends_an_idle_subscription(probe: Probe) -> None:
    async with probe.open() as broker, probe.reading(broker) as reader:
        reader.stop()
        await reader.ended()


async def cancelling_while_it_stops_gives_back(probe: Probe) -> None:
    async with probe.open() as broker:
        async with probe.reading(broker, Gate(), limit=1) as reader:
            await probe.publish(broker, b"1")
            await reader.has(1)
            reader.stop()
            await probe.nothing_more_comes()
            await reader.cancel()
        async with probe.reading(broker) as again:
            await again.has_finished(1)
            expect(again.received[0] == b"1", "what was given back")


async def the_limit_is_kept(probe: Probe) -> None:
    """A slow consumer never has more under way than it said."""
    bodies = [b"%d" % number for number in range(12)]
    for limit in (1, 3):
        gate = Gate()
        async with probe.open() as broker, probe.reading(broker, gate, limit=limit) as reader:
            await probe.publish(broker, *bodies)
            await reader.has(limit if probe.setup.promises.side_by_side else 1)
            await probe.nothing_more_comes()
            expect(reader.most_under_way <= limit, f"{reader.most_under_way} under way, the limit is {limit}")
            gate.open()
            await reader.has_finished(12)
            expect(reader.most_under_way <= limit, f"{reader.most_under_way} under way, the limit is {limit}")
            reader.expect_once(bodies, f"with a limit of {limit}")


async def consumers_of_a_group_share(probe: Probe) -> None:
    bodies = [b"%d" % number for number in range(40)]
    came: list[bytes] = []
    complete = trio.Event()

    async def note(message: Message) -> Outcome:
        came.append(message.data)
        if len(came) == len(bodies):
            complete.set()
        return Outcome.ACK

    async with (
        probe.open() as one,
        probe.open() as two,
        probe.reading(one, note),
        probe.reading(two, note),
    ):
        await probe.publish(one, *bodies)
        with within(probe.setup.patience, "two consumers did not receive 40 messages"):
            await complete.wait()
        await probe.nothing_more_comes()
        expect_same(came, bodies, "two consumers of one group")


async def a_consumer_leaves_and_the_other_goes_on(probe: Probe) -> None:
    """Whichever came first, and however the other leaves."""
    async with probe.open() as one, probe.open() as two, probe.reading(one) as stays:
        async with probe.reading(two):
            pass
        await probe.publish(two, b"1")
        await stays.has_finished(1)
        async with probe.reading(two) as goes:
            await goes.cancel()
        await probe.publish(two, b"2")
        await stays.has_finished(2)
        stays.expect_once([b"1", b"2"], "the consumer that stayed")


async def a_busy_consumer_leaves_the_rest_to_others(probe: Probe) -> None:
    """What it cannot begin it does not hoard."""
    gate = Gate()
    bodies = [b"%d" % number for number in range(10)]
    async with (
        probe.open() as one,
        probe.open() as two,
        probe.reading(one, gate, limit=1) as busy,
    ):
        await probe.publish(one, bodies[0])
        await busy.has(1)
        async with probe.reading(two) as free:
            await probe.publish(one, *bodies[1:])
            await free.has_finished(9)
            gate.open()
            await busy.has_finished(1)
            free.expect_once(bodies[1:], "the consumer that was free")


async def a_group_keeps_what_comes_while_nobody_reads(probe: Probe) -> None:
    bodies = [b"%d" % number for number in range(10)]
    async with probe.open() as broker, probe.reading(broker) as reader:
        await probe.publish(broker, b"first")
        await reader.has_finished(1)
    async with probe.open("other") as elsewhere:
        await probe.publish(elsewhere, *bodies)
    async with probe.open() as broker, probe.reading(broker) as again:
        await again.has_finished(10)
        await probe.nothing_more_comes()
        again.expect_once(bodies, "what was published meanwhile")


async def the_first_group_receives_what_came_before(probe: Probe) -> None:
    """Also when the publisher has gone meanwhile; and then what comes after."""
    bodies = [b"%d" % number for number in range(10)]
    async with probe.open("publisher") as elsewhere:
        await probe.publish(elsewhere, *bodies)
    async with probe.open() as broker, probe.reading(broker, limit=1) as first:
        await probe.publish(broker, b"after")
        await first.has_finished(11)
        await probe.nothing_more_comes()
        first.expect_once([*bodies, b"after"], "the first group of a topic that was published to before")
        if probe.setup.promises.keeps_order:
            expect(first.received == [*bodies, b"after"], f"out of order: {first.received}")


def _competing(promises: Promises) -> bool:
    return promises.competing


def _redelivers(promises: Promises) -> bool:
    return promises.redelivers


CHECKS = (
    *collect(
        acknowledged_is_final,
        cancelled_subscriptions_leave_no_consumer_behind,
        cancelling_while_it_starts_is_harmless,
        stop_finishes_what_is_under_way,
        stop_ends_an_idle_subscription,
        the_limit_is_kept,
    ),
    *collect(retry_comes_again, when=_redelivers),
    *collect(retry_holds_up_nobody, when=lambda promises: promises.redelivers and promises.side_by_side),
    *collect(
        retry_survives_the_end_of_the_subscription,
        a_delivery_that_raises_gives_back,
        cancelled_delivery_comes_to_the_next_subscription,
        cancelling_while_it_stops_gives_back,
        when=lambda promises: promises.redelivers and promises.durable,
    ),
    *collect(
        cancelled_delivery_goes_to_another_consumer,
        when=lambda promises: promises.redelivers and promises.competing,
    ),
    *collect(consumers_of_a_group_share, a_consumer_leaves_and_the_other_goes_on, when=_competing),
    *collect(
        a_busy_consumer_leaves_the_rest_to_others,
        when=lambda promises: promises.competing and promises.side_by_side,
    ),
    *collect(a_group_keeps_what_comes_while_nobody_reads, when=lambda promises: promises.durable),
    *collect(the_first_group_receives_what_came_before, when=lambda promises: promises.keeps_unclaimed),
)
