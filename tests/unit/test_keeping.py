"""Consumers that are kept going, batches of a bulk subscription, and waiting for the application."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.app import AppChannel
from meshnode.blocks.keeping import keep_going, wait_for_app
from meshnode.blocks.pubsub.batches import Batches
from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import Message, Outcome


class Consumer:
    """Fails as often as it is told; then consumes until the stop."""

    def __init__(self, failures: int, stop: trio.Event, *, late: bool = False) -> None:
        self.failures = failures
        self.stop = stop
        self.late = late
        self.starts: list[float] = []
        self.running = False

    async def consume(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.starts.append(trio.current_time())
        if self.failures and not self.late:
            self.failures -= 1
            raise ComponentUnavailable("no broker")
        task_status.started()
        if self.failures:
            self.failures -= 1
            await trio.sleep(1)
            raise ComponentUnavailable("lost the broker")
        self.running = True
        try:
            await self.stop.wait()
        finally:
            self.running = False


async def test_a_consumer_that_fails_is_started_again_with_growing_pauses(autojump_clock: MockClock) -> None:
    stop = trio.Event()
    consumer = Consumer(8, stop)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(keep_going, "test", consumer.consume, stop))
        assert consumer.running
        pauses = [after - before for before, after in zip(consumer.starts, consumer.starts[1:], strict=False)]
        assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
        stop.set()
    assert not consumer.running


async def test_pauses_start_over_after_a_start(autojump_clock: MockClock) -> None:
    stop = trio.Event()
    consumer = Consumer(3, stop, late=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(keep_going, "test", consumer.consume, stop))
        await trio.sleep(60)
        assert consumer.starts == [0, 1.5, 3, 4.5]
        stop.set()


async def test_an_impatient_one_hears_the_first_failure(autojump_clock: MockClock) -> None:
    stop = trio.Event()
    with pytest.raises(ComponentUnavailable, match="no broker"):
        await keep_going("test", Consumer(1, stop).consume, stop, patient=False)


@pytest.mark.parametrize("failures", [0, 1_000_000])
async def test_stop_ends_it_wherever_it_is(autojump_clock: MockClock, failures: int) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(keep_going, "test", Consumer(failures, stop).consume, stop))
        await trio.sleep(100)
        stop.set()


async def test_a_consumer_that_ends_by_itself_is_started_again(autojump_clock: MockClock) -> None:
    stop, starts = trio.Event(), []

    async def consume(*, task_status: trio.TaskStatus[None]) -> None:
        starts.append(trio.current_time())
        task_status.started()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(keep_going, "test", consume, stop))
        await trio.sleep(2.2)
        stop.set()
    assert starts == [0, 0.5, 1, 1.5, 2]


async def test_waiting_for_the_application() -> None:
    app, stop = AppChannel(None), trio.Event()
    assert await wait_for_app(app, stop)
    app.set_healthy(False)
    answers: list[bool] = []

    async def wait() -> None:
        answers.append(await wait_for_app(app, stop))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert answers == []
        app.set_healthy(True)
    app.set_healthy(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        stop.set()
    assert answers == [True, False]


# --- batches


class Receiver:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.times: list[float] = []
        self.takes = 0.0

    async def receive(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        self.batches.append([message.position for message in messages])
        self.times.append(trio.current_time())
        await trio.sleep(self.takes)
        return [Outcome.ACK if message.position % 2 else Outcome.RETRY for message in messages]


class Bench:
    def __init__(self, nursery: trio.Nursery, receiver: Receiver, most: int = 3) -> None:
        self.stop = trio.Event()
        self.nursery = nursery
        self.outcomes: dict[int, Outcome] = {}
        self.batches = Batches(receiver.receive, most=most, patience=1.0, stop=self.stop)
        nursery.start_soon(self.batches.run)

    def put(self, *positions: int) -> None:
        for position in positions:
            self.nursery.start_soon(self._deliver, position)

    async def _deliver(self, position: int) -> None:
        message = Message("t", b"", position=position)
        self.outcomes[position] = await self.batches.deliver(message)


async def test_a_full_batch_leaves_at_once_in_order(autojump_clock: MockClock) -> None:
    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, receiver)
        bench.put(5, 3, 4, 1, 2)
        await trio.sleep(10)
        assert receiver.batches == [[1, 2, 3], [4, 5]]
        assert receiver.times == [0, 1]
        assert bench.outcomes == {n: Outcome.ACK if n % 2 else Outcome.RETRY for n in range(1, 6)}
        nursery.cancel_scope.cancel()


async def test_one_batch_at_a_time(autojump_clock: MockClock) -> None:
    receiver = Receiver()
    receiver.takes = 5
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, receiver)
        bench.put(1, 2, 3)
        await trio.sleep(1)
        bench.put(4, 5, 6)
        await trio.sleep(20)
        assert (receiver.batches, receiver.times) == ([[1, 2, 3], [4, 5, 6]], [0, 5])
        nursery.cancel_scope.cancel()


async def test_stop_sends_what_there_is(autojump_clock: MockClock) -> None:
    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, receiver)
        bench.put(1)
        await wait_all_tasks_blocked()
        bench.stop.set()
        await wait_all_tasks_blocked()
        assert bench.outcomes == {1: Outcome.ACK}
        assert receiver.times == [0]
        nursery.cancel_scope.cancel()


async def test_a_cancelled_delivery_is_in_no_batch(autojump_clock: MockClock) -> None:
    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, receiver)
        with trio.move_on_after(0.5):
            await bench.batches.deliver(Message("t", b"", position=1))
        bench.put(2)
        await trio.sleep(10)
        assert receiver.batches == [[2]]
        nursery.cancel_scope.cancel()
