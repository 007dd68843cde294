"""How fast this machine is right now: what everybody else does on it stretches CPU time, too.

Imports trio only.
"""

from __future__ import annotations

import time

import trio

__all__ = ["empty_nursery_us"]

_TIMES = 2000


def empty_nursery_us() -> float:
    """CPU time of an empty nursery, the unit in which runs on different machines can be compared."""
    return trio.run(_measure)


async def _measure() -> float:
    begun = time.process_time()
    for _ in range(_TIMES):
        async with trio.open_nursery():
            pass
    return round((time.process_time() - begun) / _TIMES * 1e6, 2)
