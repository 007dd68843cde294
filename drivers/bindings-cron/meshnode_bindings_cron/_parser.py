"""Schedules as Dapr's component takes them.

Five fields (minute, hour, day of the month, month, day of the week) or six with seconds before them. A field
is a list of `*`, `?`, `N`, `N-M`, each with `/step` if wanted; months and days of the week have English
names of three letters. Or one of `@every DURATION`, `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`,
`@yearly`, `@annually`. Either after `TZ=ZONE` or `CRON_TZ=ZONE` if wanted.
"""

from __future__ import annotations

import re
from datetime import tzinfo
from decimal import Decimal
from typing import final

from attrs import frozen

from meshnode_bindings_cron._schedule import Calendar, Every, Field
from meshnode_bindings_cron._zones import named_zone

__all__ = ["parse_schedule"]

_NUMBER = re.compile(r"\+?[0-9]{1,9}")
_TERM = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),  # U+00B5 micro sign
    "μs": Decimal("1e-6"),  # U+03BC Greek letter mu
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_MILLISECOND = Decimal("0.001")
_EVERY = "@every "
_DESCRIPTORS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}


@final
@frozen
class _Bounds:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        word = text.lower()
        if word in self.names:
            return self.names.index(word) + self.low
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{self.name}: {text!r} is no number" + (" and no name" if self.names else ""))
        value = int(text)
        if not self.low <= value <= self.high:
            hint = "; Sunday is 0" if self.name == "day of the week" and value == 7 else ""
            raise ValueError(f"{self.name}: {value} is not within {self.low} to {self.high}{hint}")
        return value


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    _Bounds("second", 0, 59),
    _Bounds("minute", 0, 59),
    _Bounds("hour", 0, 23),
    _Bounds("day of the month", 1, 31),
    _Bounds("month", 1, 12, _MONTHS),
    _Bounds("day of the week", 0, 6, _WEEKDAYS),
)


def parse_schedule(text: str) -> Calendar | Every:
    """Raises `ValueError` with a sentence."""
    zone, text = _zone(text)
    if text.startswith(_EVERY):
        return Every(_duration(text.removeprefix(_EVERY)))
    if text.startswith("@"):
        if text not in _DESCRIPTORS:
            raise ValueError(f"{text!r} is none of @every DURATION, {', '.join(sorted(_DESCRIPTORS))}")
        text = _DESCRIPTORS[text]
    fields = text.split()
    if not 5 <= len(fields) <= 6:
        raise ValueError(f"{text!r} has {len(fields)} fields, not 5, or 6 with seconds")
    if len(fields) == 5:
        fields.insert(0, "0")
    second, minute, hour, day, month, weekday = map(_field, fields, _FIELDS)
    return Calendar(second, minute, hour, day, month, weekday, zone)


def _zone(text: str) -> tuple[tzinfo | None, str]:
    if not text.startswith(("TZ=", "CRON_TZ=")):
        return None, text
    prefix, *rest = text.split(maxsplit=1)
    if not rest:
        raise ValueError(f"{prefix!r} is not followed by a schedule")
    name = prefix.partition("=")[2]
    return None if name == "Local" else named_zone(name), rest[0].strip()


def _field(text: str, bounds: _Bounds) -> Field:
    parts = [part for part in text.split(",") if part]
    if not parts:
        raise ValueError(f"{bounds.name}: {text!r} names no value")
    values: set[int] = set()
    wild = False
    for part in parts:
        found, is_wild = _range(part, bounds)
        values.update(found)
        wild = wild or is_wild
    return Field(tuple(sorted(values)), wild)


def _range(text: str, bounds: _Bounds) -> tuple[range, bool]:
    """The values, and whether it is a wildcard: `*` with a step above 1 restricts, so it is none."""
    span, slash, step_text = text.partition("/")
    step = _step(step_text, bounds) if slash else 1
    if span in ("*", "?"):
        return range(bounds.low, bounds.high + 1, step), step == 1
    first, dash, last = span.partition("-")
    low = bounds.number(first)
    # `N/step` is short for `N-MAX/step`.
    high = bounds.number(last) if dash else bounds.high if slash else low
    if low > high:
        raise ValueError(f"{bounds.name}: {text!r} ends before it begins")
    return range(low, high + 1, step), False


def _step(text: str, bounds: _Bounds) -> int:
    if not _NUMBER.fullmatch(text) or int(text) == 0:
        raise ValueError(f"{bounds.name}: {text!r} is no step; it has to be a number above 0")
    return int(text)


def _duration(text: str) -> float:
    """In whole milliseconds and at least one, as in Dapr."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    terms = _TERM.findall(rest)
    if rest != "0" and (not terms or "".join(number + unit for number, unit in terms) != rest):
        raise ValueError(f"{text!r} is no duration such as 30s, 500ms or 1h30m")
    total = sign * sum((Decimal(number) * _UNITS[unit] for number, unit in terms), Decimal(0))
    return float(max(_MILLISECOND, total // _MILLISECOND * _MILLISECOND))
