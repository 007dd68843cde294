"""How long to wait before a broker is dialled again. No I/O."""

from __future__ import annotations

import random
from typing import final

__all__ = ["Pause"]

_FIRST = 0.2
_LONGEST = 15.0
_SETTLED = 10.0


@final
class Pause:
    """Doubles while connections fail or end soon: two clients with one client id throw each other out."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next = _FIRST

    def after(self, lived: float) -> float:
        """In seconds, after a connection that held for so long (0 if there was none)."""
        if lived >= _SETTLED:
            self._next = _FIRST
        pause = self._next * self._rng.uniform(0.75, 1.25)
        self._next = min(_LONGEST, self._next * 2)
        return pause
