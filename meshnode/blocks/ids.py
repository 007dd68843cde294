"""Fresh ids. Pure but for the dice it is given."""

from __future__ import annotations

import random

__all__ = ["fresh_id"]


def fresh_id(rng: random.Random) -> str:
    """A random UUID (RFC 9562, version 4) as text; a third of what `uuid` takes for it."""
    text = f"{rng.getrandbits(128):032x}"
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"
