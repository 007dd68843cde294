"""Sizes as Kubernetes writes them: `4Mi`, `16Ki`, `1500k`, `4194304`, `-1` for no limit. Imports nothing of
meshnode, and no fractions: on the start-up path.
"""

from __future__ import annotations

import re

__all__ = ["parse_quantity"]

_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
}
_SHAPE = re.compile(r"([-+]?[0-9]{1,20}(?:\.[0-9]{1,20})?)([A-Za-z]*)")


def parse_quantity(text: str) -> int:
    """Bytes; raises `ValueError` with a sentence for the user."""
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; sizes look like 4Mi, 512Ki or 4194304")
    number, unit = match.groups()
    if unit not in _UNITS:
        raise ValueError(f"{text!r} is a size in no known unit; the units are {', '.join(_UNITS)[2:]}")
    whole, _, decimals = number.partition(".")
    scale: int = 10 ** len(decimals)
    size, rest = divmod(int(whole + decimals) * _UNITS[unit], scale)
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size
