"""The instants a schedule names.

A calendar schedule is the set of seconds whose local time fits its fields, so it follows the clock on the
wall through the changes to and from summer time: an hour that is left out fires nothing, one that comes
twice fires twice, as in Dapr.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from datetime import date, datetime, time, timedelta, tzinfo
from typing import final

from attrs import field, frozen

__all__ = ["Calendar", "Every", "Field"]

_DAY = timedelta(days=1)
_SEARCHED_DAYS = 9 * 366
"""Leap days may be eight years apart; what does not come by then never comes."""


@final
@frozen
class Field:
    """The values one field allows, ascending; `any` when it was written as a bare `*` or `?`."""

    values: tuple[int, ...]
    any: bool = False

    def __contains__(self, value: int) -> bool:
        return value in self.values

    def first_from(self, value: int) -> int | None:
        at = bisect_left(self.values, value)
        return self.values[at] if at < len(self.values) else None


@final
@frozen
class Every:
    """A fixed distance in seconds, counted from the start."""

    seconds: float


@final
@frozen
class Calendar:
    """`weekdays` count from Sunday, 0. `zone` None means the machine's."""

    seconds: Field
    minutes: Field
    hours: Field
    days: Field
    months: Field
    weekdays: Field
    zone: tzinfo | None = field(default=None)

    def next_after(self, now: float, local: tzinfo) -> float | None:
        """The first instant after `now` (seconds since 1970), or None when there is none."""
        zone = self.zone or local
        earliest = math.floor(now) + 1
        day = datetime.fromtimestamp(earliest, zone).date()
        for _ in range(_SEARCHED_DAYS):
            if day.month in self.months:
                found = self._within(day, earliest, zone)
                if found is not None:
                    return float(found)
            if day >= date.max - _DAY:
                return None
            day += _DAY
        return None

    def _within(self, day: date, earliest: int, zone: tzinfo) -> int | None:
        start, end = _midnight(day, zone), _midnight(day + _DAY, zone)
        begin, stop = int(start.timestamp()), int(end.timestamp())
        if start.utcoffset() != end.utcoffset():
            return self._walk(max(begin, earliest), stop, zone)
        if not self._fits(day):
            return None
        second = self._time_of_day(max(0, earliest - begin))
        return None if second is None else begin + second

    def _fits(self, day: date) -> bool:
        """Both fields of the day have to fit, unless both were restricted: then either is enough."""
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if day.month not in self.months:
            return False
        return in_month and in_week if self.days.any or self.weekdays.any else in_month or in_week

    def _time_of_day(self, earliest: int) -> int | None:
        """The first fitting second of a day of 24 hours, from `earliest` on."""
        hour, minute, second = earliest // 3600, earliest // 60 % 60, earliest % 60
        if hour in self.hours:
            if minute in self.minutes and (found := self.seconds.first_from(second)) is not None:
                return hour * 3600 + minute * 60 + found
            if (found := self.minutes.first_from(minute + 1)) is not None:
                return hour * 3600 + found * 60 + self.seconds.values[0]
        if (found := self.hours.first_from(hour + 1)) is not None:
            return found * 3600 + self.minutes.values[0] * 60 + self.seconds.values[0]
        return None

    def _walk(self, at: int, stop: int, zone: tzinfo) -> int | None:
        """Minute by minute through a day on which the clock is changed."""
        while at < stop:
            local = datetime.fromtimestamp(at, zone)
            if local.hour in self.hours and local.minute in self.minutes and self._fits(local.date()):
                found = self.seconds.first_from(local.second)
                if found is not None:
                    return at + found - local.second
            at += 60 - local.second
        return None


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(), zone)
