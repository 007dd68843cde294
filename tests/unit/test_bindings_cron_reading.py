"""bindings.cron: waiting and firing, on a virtual clock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import trio
import trio.testing
from meshnode_bindings_cron import CronBinding, Options, driver

from meshnode.interfaces import BindingEvent, DriverContext, InputBinding, Outcome, OutputBinding
from meshnode.testing.conformance import bindings

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class Wall:
    """A clock that runs with trio's and can be set."""

    def __init__(self) -> None:
        self.offset = START

    def __call__(self) -> float:
        return self.offset + trio.current_time()


@pytest.mark.parametrize("schedule", ["@every 10s", "*/10 * * * * *"])
@pytest.mark.parametrize("check", bindings.INPUT_CHECKS, ids=str)
async def test_conformance(
    check: bindings.BindingCheck[bindings.InputSetup], schedule: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def by_itself(_data: bytes) -> None:
        pass

    context = DriverContext("cron", "app", wall=Wall())
    setup = bindings.InputSetup(
        lambda: driver.open(Options(schedule=schedule), context),
        by_itself,
        carries_data=False,
        redelivers=False,
        durable=False,
        patience=60,
    )
    await check.run(setup)


async def record(
    schedule: str,
    count: int,
    *,
    wall: Callable[[], float] | None = None,
    during: Callable[[int], float] = lambda _: 0.0,
    outcome: Outcome = Outcome.ACK,
) -> list[float]:
    """When the first events came, in seconds since the beginning; `during` is how long each is worked on."""
    clock = wall or Wall()
    times: list[float] = []
    stop = trio.Event()

    async def receive(event: BindingEvent) -> Outcome:
        times.append(round(trio.current_time(), 3))
        await trio.sleep(during(len(times)))
        if len(times) == count:
            stop.set()
        return outcome

    context = DriverContext("cron", "app", wall=clock, env={"TZ": "UTC"})
    async with driver.open(Options(schedule=schedule), context) as binding, trio.open_nursery() as nursery:
        await nursery.start(binding.read, receive, stop)
    return times


async def test_fires_on_the_second(autojump_clock: trio.testing.MockClock) -> None:
    assert await record("*/20 * * * * *", 4) == [20, 40, 60, 80]


async def test_far_apart(autojump_clock: trio.testing.MockClock) -> None:
    assert await record("0 0 * * *", 3) == [86400, 172800, 259200]


async def test_every_does_not_drift(autojump_clock: trio.testing.MockClock) -> None:
    times = await record("@every 100ms", 1000, during=lambda n: 0.03)
    assert times == [round(0.1 * n, 3) for n in range(1, 1001)]


async def test_retry_waits_for_the_next_tick(autojump_clock: trio.testing.MockClock) -> None:
    assert await record("@every 10s", 3, outcome=Outcome.RETRY) == [10, 20, 30]


@pytest.mark.parametrize("schedule", ["@every 10s", "*/10 * * * * *"])
async def test_ticks_during_a_long_receive_are_skipped(
    schedule: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "meshnode.driver"):
        times = await record(schedule, 4, during=lambda n: 25 if n < 3 else 0)
    assert times == [10, 40, 70, 80]
    assert caplog.messages == [f"cron: ticks of {schedule!r} pass while the application is busy"]


async def test_what_an_event_says(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[BindingEvent] = []
    stop = trio.Event()

    async def receive(event: BindingEvent) -> Outcome:
        seen.append(event)
        if len(seen) == 2:
            stop.set()
        return Outcome.ACK

    context = DriverContext("cron", "app", wall=Wall(), env={"TZ": "Asia/Kolkata"})
    async with driver.open(Options(schedule="@every 500ms"), context) as binding:
        await binding.read(receive, stop, task_status=trio.TASK_STATUS_IGNORED)
    times = ["2026-01-01 00:00:00.5 +0000 UTC", "2026-01-01 00:00:01 +0000 UTC"]
    assert seen == [BindingEvent(metadata={"timeZone": "Local", "readTimeUTC": time}) for time in times]


async def test_the_machine_s_zone(autojump_clock: trio.testing.MockClock) -> None:
    stop = trio.Event()
    fired: list[float] = []

    async def receive(event: BindingEvent) -> Outcome:
        fired.append(trio.current_time())
        stop.set()
        return Outcome.ACK

    context = DriverContext("cron", "app", wall=Wall(), env={"TZ": "Asia/Kolkata"})
    async with driver.open(Options(schedule="0 6 * * *"), context) as binding:
        await binding.read(receive, stop, task_status=trio.TASK_STATUS_IGNORED)
    assert [round(one) for one in fired] == [1800]


async def setting(wall: Wall, at: float, by: float) -> None:
    await trio.sleep(at)
    wall.offset += by


async def test_a_clock_put_forward_fires_late_and_once(autojump_clock: trio.testing.MockClock) -> None:
    wall = Wall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting, wall, 90.0, 7200.0)
        times = await record("0 * * * *", 2, wall=wall)
    # Due at 01:00 and 02:00; at the next look it is 02:02.
    assert times == [120, 3600]


async def test_a_clock_put_back_fires_no_tick_twice(autojump_clock: trio.testing.MockClock) -> None:
    wall = Wall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting, wall, 3700.0, -1800.0)
        times = await record("0 * * * *", 2, wall=wall)
    assert times == [3600, 9000]


async def test_a_clock_that_was_wrong_by_a_year(autojump_clock: trio.testing.MockClock) -> None:
    wall = Wall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting, wall, 90.0, -365 * 86400.0)
        times = await record("0 * * * *", 2, wall=wall)
    assert times == [3600, 7200]


async def test_every_is_not_touched_by_the_wall_clock(autojump_clock: trio.testing.MockClock) -> None:
    wall = Wall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting, wall, 15.0, -5000.0)
        times = await record("@every 10s", 3, wall=wall)
    assert times == [10, 20, 30]


async def test_a_schedule_that_never_comes_waits_for_the_stop(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def receive(event: BindingEvent) -> Outcome:
        raise AssertionError("fired")

    stop = trio.Event()
    context = DriverContext("cron", "app", wall=Wall(), env={"TZ": "UTC"})
    async with (
        driver.open(Options(schedule="0 0 30 2 *"), context) as binding,
        trio.open_nursery() as nursery,
    ):
        with caplog.at_level(logging.WARNING, "meshnode.driver"):
            await nursery.start(binding.read, receive, stop)
        await trio.sleep(80_000)
        stop.set()
    assert caplog.messages == ["cron: schedule '0 0 30 2 *' never comes"]


async def test_stop_waits_for_what_is_under_way(autojump_clock: trio.testing.MockClock) -> None:
    stop = trio.Event()
    done: list[float] = []

    async def receive(event: BindingEvent) -> Outcome:
        stop.set()
        await trio.sleep(30)
        done.append(trio.current_time())
        return Outcome.ACK

    context = DriverContext("cron", "app", wall=Wall(), env={"TZ": "UTC"})
    async with driver.open(Options(schedule="@every 1s"), context) as binding:
        await binding.read(receive, stop, task_status=trio.TASK_STATUS_IGNORED)
    assert done == [31]


async def test_cancelled_it_ends_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async def receive(event: BindingEvent) -> Outcome:
        await trio.sleep_forever()
        raise AssertionError

    context = DriverContext("cron", "app", wall=Wall(), env={"TZ": "UTC"})
    async with driver.open(Options(schedule="@every 1s"), context) as binding:
        with trio.move_on_after(5) as scope:
            await binding.read(receive, trio.Event(), task_status=trio.TASK_STATUS_IGNORED)
    assert scope.cancelled_caught
    assert trio.current_time() == 5


async def test_it_is_an_input_binding_only() -> None:
    async with driver.open(Options(schedule="@daily"), DriverContext("cron", "app")) as binding:
        assert isinstance(binding, CronBinding)
        assert isinstance(binding, InputBinding)
        assert not isinstance(binding, OutputBinding)
