"""Deliveries side by side: the limit, keys, the stop, cancellation and errors, on the virtual clock."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import open_deliveries


class Log:
    """Deliveries that note when they begin and end."""

    def __init__(self):
        self.begun = []
        self.done = []
        self.given_back = []

    async def handle(self, item, seconds=1.0):
        self.begun.append(item)
        finished = False
        try:
            await trio.sleep(seconds)
            finished = True
        finally:
            (self.done if finished else self.given_back).append(item)

    async def unbegun(self, item):
        self.given_back.append(item)


@pytest.fixture
def log():
    return Log()


async def test_room_is_what_is_left_of_the_limit(log, autojump_clock):
    stop = trio.Event()
    async with open_deliveries(limit=3, stop=stop) as deliveries:
        assert await deliveries.room() == 3
        deliveries.start(partial(log.handle, 1, 1.0))
        deliveries.start(partial(log.handle, 2, 2.0))
        assert await deliveries.room() == 1
        deliveries.start(partial(log.handle, 3, 3.0))
        assert deliveries.under_way == 3
        assert await deliveries.room() == 1  # when the first has ended
        assert log.done == [1]
    assert log.done == [1, 2, 3]


async def test_a_limit_below_one_is_one(autojump_clock):
    async with open_deliveries(limit=0, stop=trio.Event()) as deliveries:
        assert await deliveries.room() == 1


async def test_room_is_none_once_stopped(log, autojump_clock):
    stop = trio.Event()
    async with trio.open_nursery() as nursery, open_deliveries(limit=1, stop=stop) as deliveries:
        deliveries.start(partial(log.handle, 1, 60.0))

        async def stop_soon():
            await trio.sleep(1)
            stop.set()

        nursery.start_soon(stop_soon)
        assert await deliveries.room() == 0
        assert trio.current_time() < 10
        assert await deliveries.room() == 0
    assert log.done == [1]  # leaving the block waits for it


async def test_one_key_follows_itself_while_others_go_on(log, autojump_clock):
    async with open_deliveries(limit=9, stop=trio.Event()) as deliveries:
        deliveries.start(partial(log.handle, "a1", 5.0), key="a")
        deliveries.start(partial(log.handle, "a2", 1.0), key="a")
        deliveries.start(partial(log.handle, "b1", 1.0), key="b")
        deliveries.start(partial(log.handle, "none", 2.0))
        await wait_all_tasks_blocked()
        assert set(log.begun) == {"a1", "b1", "none"}
        assert deliveries.under_way == 4
    assert log.done == ["b1", "none", "a1", "a2"]


async def test_a_key_can_be_used_again(log, autojump_clock):
    async with open_deliveries(limit=9, stop=trio.Event()) as deliveries:
        for item in range(3):
            deliveries.start(partial(log.handle, item), key="a")
            await trio.sleep(5)
    assert log.done == [0, 1, 2]


async def test_the_stop_ends_a_wait(autojump_clock):
    stop = trio.Event()
    async with trio.open_nursery() as nursery, open_deliveries(limit=1, stop=stop) as deliveries:

        async def stop_soon():
            await trio.sleep(1)
            stop.set()

        nursery.start_soon(stop_soon)
        assert await deliveries.unless_stopped(trio.sleep_forever) is None
        assert await deliveries.unless_stopped(trio.sleep_forever) is None  # already stopped


async def test_the_result_of_a_wait_comes_back(autojump_clock):
    async def wait():
        await trio.sleep(1)
        return "it"

    async def fail():
        raise ComponentUnavailable("gone")

    async with open_deliveries(limit=1, stop=trio.Event()) as deliveries:
        assert await deliveries.unless_stopped(wait) == "it"
        with pytest.raises(ComponentUnavailable, match="gone"):
            await deliveries.unless_stopped(fail)


async def test_a_result_is_not_lost_to_a_cancellation(log, autojump_clock):
    """What `wait` took from the broker just as the subscription was cancelled is begun, and given back."""
    scope = trio.CancelScope()

    async def take():
        await trio.lowlevel.checkpoint()
        scope.cancel()
        return ["taken"]

    with scope:
        async with open_deliveries(limit=1, stop=trio.Event()) as deliveries:
            for item in await deliveries.unless_stopped(take) or ():
                deliveries.start(partial(log.handle, item))
    assert scope.cancelled_caught
    assert log.given_back == ["taken"]


async def test_a_result_is_not_lost_to_a_stop(autojump_clock):
    stop = trio.Event()

    async def take():
        await trio.lowlevel.checkpoint()
        stop.set()
        return ["taken"]

    async with open_deliveries(limit=1, stop=stop) as deliveries:
        assert await deliveries.unless_stopped(take) == ["taken"]


async def test_cancelled_deliveries_give_back_those_that_wait_for_their_key_too(log, autojump_clock):
    with trio.CancelScope() as scope:
        async with open_deliveries(limit=9, stop=trio.Event()) as deliveries:
            for item in "xyz":
                deliveries.start(partial(log.handle, item), key="k")
            await wait_all_tasks_blocked()
            assert log.begun == ["x"]
            scope.cancel()
    assert sorted(log.given_back) == ["x", "y", "z"]
    assert log.done == []


async def test_what_waits_for_its_key_when_the_stop_comes_goes_back(log, autojump_clock):
    stop = trio.Event()
    async with open_deliveries(limit=9, stop=stop) as deliveries:
        for item in "xyz":
            handle, unbegun = partial(log.handle, item), partial(log.unbegun, item)
            deliveries.start(handle, key="k", unbegun=unbegun)
        await wait_all_tasks_blocked()
        stop.set()
    assert log.done == ["x"]
    assert log.given_back == ["y", "z"]


async def test_without_unbegun_a_key_is_worked_off_after_the_stop(log, autojump_clock):
    stop = trio.Event()
    async with open_deliveries(limit=9, stop=stop) as deliveries:
        for item in "xy":
            deliveries.start(partial(log.handle, item), key="k")
        await wait_all_tasks_blocked()
        stop.set()
    assert log.done == ["x", "y"]


@pytest.mark.parametrize("key", [None, "k"])
async def test_an_error_of_a_delivery_comes_out_as_itself(log, key, autojump_clock):
    async def fail():
        await trio.sleep(1)
        raise ComponentUnavailable("gone")

    with pytest.raises(ComponentUnavailable, match="gone"):
        async with open_deliveries(limit=9, stop=trio.Event()) as deliveries:
            deliveries.start(fail, key=key)
            deliveries.start(partial(log.handle, "behind", 60.0), key=key)
            await trio.sleep_forever()
    assert log.given_back == ["behind"]


async def test_of_several_errors_one_comes_out(autojump_clock):
    async def fail():
        await trio.sleep(1)
        raise ComponentUnavailable("gone")

    with pytest.raises(ComponentUnavailable, match="gone"):
        async with open_deliveries(limit=9, stop=trio.Event()) as deliveries:
            for _ in range(3):
                deliveries.start(fail)
            await trio.sleep_forever()


async def test_an_error_of_the_block_comes_out_as_itself(log, autojump_clock):
    error = ComponentUnavailable("lost the connection")
    with pytest.raises(ComponentUnavailable) as caught:
        async with open_deliveries(limit=9, stop=trio.Event()) as deliveries:
            deliveries.start(partial(log.handle, 1, 60.0))
            await wait_all_tasks_blocked()
            raise error
    assert caught.value is error
    assert log.given_back == [1]


async def test_leaving_without_a_stop_waits_and_ends(log, autojump_clock):
    async with open_deliveries(limit=9, stop=trio.Event()) as deliveries:
        deliveries.start(partial(log.handle, 1))
    assert log.done == [1]


async def test_those_that_are_begun_together_begin_in_their_order(log):
    for _ in range(20):  # trio runs the tasks of a moment in one order or the other
        log.begun.clear()
        async with open_deliveries(limit=9, stop=trio.Event()) as deliveries:
            for number in range(5):
                deliveries.start(partial(log.handle, number, 0.0), key=number if number % 2 else None)
        assert log.begun == [0, 1, 2, 3, 4]
