"""Waiting for a schedule and firing.

Calendar schedules follow the wall clock, `@every` the clock that nobody sets. Events are handed over one by
one: there is nothing to run side by side, so `open_deliveries` is not used. A tick that passes while the
application is still busy with the one before is skipped.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo
from typing import Protocol, final

import trio
from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import BindingEvent, DriverContext, Receive, option
from meshnode_bindings_cron._parser import parse_schedule
from meshnode_bindings_cron._schedule import Calendar, Every
from meshnode_bindings_cron._zones import local_zone

__all__ = ["CronBinding", "Options"]

_LOOK_AT_THE_CLOCK = 60.0
"""How often a long wait looks whether somebody has set the clock."""

_CORRECTION = 3 * 3600.0
"""A clock put back by less than this gets no tick twice; by more, it was wrong before and counts anew."""


@final
@frozen
class Options:
    """Metadata of `bindings.cron`."""

    schedule: str = option(
        "schedule",
        "When to fire: five fields of cron, six with seconds, or `@every 1h30m`, `@hourly`, `@daily`, …; "
        "`TZ=Europe/Berlin` before it sets the time zone, which is else the machine's.",
    )

    def __attrs_post_init__(self) -> None:
        try:
            parse_schedule(self.schedule)
        except ValueError as error:
            remedy = "such as 0 30 * * * * or @every 15s"
            raise ConfigError([Problem(str(error), field="schedule", remedy=remedy)]) from None


class _Pace(Protocol):
    def delay(self) -> float:
        """Seconds until the next tick; 0 or less: it is due."""
        ...

    def advance(self) -> bool:
        """The tick was handled; go to the next. True when some between have passed."""
        ...


@final
class _CalendarPace:
    def __init__(self, schedule: Calendar, context: DriverContext, zone: tzinfo) -> None:
        self._schedule = schedule
        self._wall = context.wall
        self._zone = zone
        self._latest = self._wall()
        self._next = self._after(self._latest)

    def _after(self, instant: float) -> float:
        found = self._schedule.next_after(instant, self._zone)
        return math.inf if found is None else found

    def delay(self) -> float:
        now = self._wall()
        if now < self._latest - _CORRECTION:
            self._latest, self._next = now, self._after(now)
        self._latest = max(self._latest, now)
        return self._next - now

    def advance(self) -> bool:
        now, following = self._wall(), self._after(self._next)
        passed = following <= now
        self._next = self._after(now) if passed else following
        return passed


@final
class _EveryPace:
    """Counts from its start, so that it does not drift."""

    def __init__(self, schedule: Every) -> None:
        self._distance = schedule.seconds
        self._start = trio.current_time()
        self._ticks = 1

    def delay(self) -> float:
        return self._start + self._ticks * self._distance - trio.current_time()

    def advance(self) -> bool:
        due = math.floor((trio.current_time() - self._start) / self._distance)
        passed = due > self._ticks
        self._ticks = max(due, self._ticks) + 1
        return passed


@final
class CronBinding:
    """An `InputBinding`."""

    def __init__(self, options: Options, context: DriverContext) -> None:
        self._options = options
        self._context = context
        self._schedule = parse_schedule(options.schedule)
        self._zone = local_zone(context.env)

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        """What `receive` answers changes nothing: a tick cannot be offered again."""
        pace = self._pace()
        if pace.delay() == math.inf:
            self._log("schedule %r never comes", self._options.schedule)
        task_status.started()
        behind = False
        while await self._due(pace, stop):
            await receive(self._event())
            passed = pace.advance()
            if passed and not behind:
                self._log("ticks of %r pass while the application is busy", self._options.schedule)
            behind = passed

    def _pace(self) -> _Pace:
        if isinstance(self._schedule, Every):
            return _EveryPace(self._schedule)
        return _CalendarPace(self._schedule, self._context, self._zone)

    async def _due(self, pace: _Pace, stop: trio.Event) -> bool:
        """Waits for the tick; False when the stop came first."""
        await trio.lowlevel.checkpoint()
        while not stop.is_set():
            delay = pace.delay()
            if delay <= 0:
                return True
            with trio.move_on_after(min(delay, _LOOK_AT_THE_CLOCK)):
                await stop.wait()
        return False

    def _event(self) -> BindingEvent:
        """Dapr names the zone of its scheduler, which is always the local one."""
        return BindingEvent(metadata={"timeZone": "Local", "readTimeUTC": _go_time(self._context.wall())})

    def _log(self, message: str, schedule: str) -> None:
        self._context.log.warning(f"%s: {message}", self._context.component, schedule)


def _go_time(wall: float) -> str:
    """As Go writes a time: no fraction where there is none, no zeros at its end."""
    moment = datetime.fromtimestamp(wall, UTC)
    fraction = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"
