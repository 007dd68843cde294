"""Durations as Go writes them: `1h2m3.5s`, `500ms`, `-1.5h`, `0`. Imports nothing: on the start-up path.

The result is seconds, truncated to whole nanoseconds in the way Go truncates, and limited to what 64 bits of
nanoseconds hold (about 292 years), so a text means here exactly what it means to a daprd that reads the same
file.
"""

from __future__ import annotations

import re

__all__ = ["MILLISECONDS", "SECONDS", "format_duration", "parse_duration"]

MILLISECONDS = 0.001
SECONDS = 1.0

_SECOND = 1_000_000_000
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5 micro sign
    "μs": 1_000,  # U+03BC Greek letter mu
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
_TERM = re.compile(r"(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?(?P<unit>ns|us|µs|μs|ms|s|m|h)")
_NUMBER = re.compile(r"[-+]?[0-9]+")
_MAX = (1 << 63) - 1
_SHOWN = 40
"""How much of a wrong text an error repeats."""


def parse_duration(text: str, *, bare: float | None = None) -> float:
    """Seconds. `bare` is what a number without a unit counts in seconds (`MILLISECONDS` in Dapr's policies,
    `SECONDS` in component metadata); without it such a number is an error, except `0`. Raises `ValueError`
    with a sentence that says what is expected."""
    if bare is not None and _NUMBER.fullmatch(text):
        nanoseconds = int(text) * round(bare * _SECOND) if len(text) <= 20 else _MAX + 1
        if abs(nanoseconds) > _MAX:
            raise _error(text, "is too long for a duration")
        return nanoseconds / _SECOND
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, at = 0, 0
    while at < len(rest):
        term = _TERM.match(rest, at)
        if term is None or not (term["whole"] or term["fraction"]):
            raise _error(text, "is not a duration", unitless=bool(_NUMBER.fullmatch(text)))
        total += _nanoseconds(term)
        if total > _MAX + (sign < 0):
            raise _error(text, "is too long for a duration")
        at = term.end()
    if not rest:
        raise _error(text, "is not a duration")
    return sign * total / _SECOND


def _nanoseconds(term: re.Match[str]) -> int:
    unit = _UNITS[term["unit"]]
    whole = term["whole"]
    if len(whole.lstrip("0")) > 19:
        return _MAX + 2
    fraction, scale = 0, 1.0
    for digit in term["fraction"] or "":
        if fraction > (_MAX - int(digit)) // 10:
            break  # Go stops here too: further digits are below a nanosecond.
        fraction = fraction * 10 + int(digit)
        scale *= 10
    return int(whole or "0") * unit + int(fraction * (unit / scale))


def _error(text: str, what: str, *, unitless: bool = False) -> ValueError:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    hint = "; a unit is missing" if unitless else ""
    return ValueError(f'"{shown}" {what}{hint} (write it like 5s, 200ms or 1m30s)')


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back to the same nanoseconds: `90.5` -> `1m30.5s`, `0` ->
    `0s`.
    """
    over, under = abs(seconds).as_integer_ratio()  # a product of floats would be rounded a second time
    nanoseconds = (2 * over * _SECOND + under) // (2 * under)
    if not nanoseconds:
        return "0s"
    sign = "-" if seconds < 0 else ""
    for unit in ("ms", "us", "ns"):
        if _UNITS[unit] <= nanoseconds < _SECOND:
            return f"{sign}{_decimal(nanoseconds, _UNITS[unit])}{unit}"
    hours, rest = divmod(nanoseconds, _UNITS["h"])
    minutes, rest = divmod(rest, _UNITS["m"])
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else ""]
    if rest:
        parts.append(f"{_decimal(rest, _SECOND)}s")
    return sign + "".join(parts)


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
