"""Times of day and intervals in the shape Dapr answers them: as its library's structs."""

from __future__ import annotations

import re

__all__ = ["interval_json", "time_json"]

_CLOCK = re.compile(r"([-+]?)(\d+):(\d+):(\d+)(?:\.(\d+))?")
_PART = re.compile(r"([-+]?\d+) (year|mon|day)s?")
_INTERVAL = re.compile(rf"(?:{_PART.pattern} ?)*(?:{_CLOCK.pattern})?")


def time_json(text: str) -> str:
    return f'{{"Microseconds":{_microseconds(text)},"Valid":true}}'


def interval_json(text: str) -> str:
    """`text` in the style `postgres`: `1 year 2 mons -3 days +04:05:06.7`. Raises `ValueError`."""
    if not text or not _INTERVAL.fullmatch(text):
        raise ValueError(text)
    found = {"year": 0, "mon": 0, "day": 0}
    for number, unit in _PART.findall(text):
        found[unit] = int(number)
    last = text.rpartition(" ")[2]
    microseconds = _microseconds(last) if ":" in last else 0
    months = 12 * found["year"] + found["mon"]
    return f'{{"Microseconds":{microseconds},"Days":{found["day"]},"Months":{months},"Valid":true}}'


def _microseconds(text: str) -> int:
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError(text)
    sign, hours, minutes, seconds, fraction = match.groups()
    whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
    total = whole * 10**6 + int((fraction or "").ljust(6, "0"))
    return -total if sign == "-" else total
