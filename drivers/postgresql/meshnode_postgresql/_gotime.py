"""Times and durations as Go writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["format_duration", "format_time", "parse_duration"]

_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_TERM = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC, without zeros at the end of the fraction."""
    utc = moment.astimezone(UTC)
    fraction = f".{utc.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{utc.year:04d}-{utc:%m-%dT%H:%M:%S}{fraction}Z"


def format_duration(seconds: float) -> str:
    """`1m30.5s`, `12.5ms`, `294µs`, `0s`."""
    nanoseconds = max(0, round(seconds * 10**9))
    if nanoseconds == 0:
        return "0s"
    for unit in ("ms", "µs", "ns"):
        if _UNITS[unit] <= nanoseconds < 10**9:
            return _decimal(nanoseconds, _UNITS[unit]) + unit
    minutes, rest = divmod(nanoseconds, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return shown + _decimal(rest, 10**9) + "s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def parse_duration(text: str) -> float:
    """Seconds; raises `ValueError`."""
    terms = _TERM.findall(text)
    if text != "0" and (not terms or "".join(number + unit for number, unit in terms) != text):
        raise ValueError("is no duration such as 30s or 1h")
    return sum(float(number) * _UNITS[unit] for number, unit in terms) / 10**9
