"""What is kept below a lock's key, and whether its time is over. No I/O.

Time is the cluster's alone: a lock has a lease, and the cluster says how much of it is left, in whole
seconds, rounded down. The lease is asked for one second longer than the lock. So when less than that second
is left the lock is over, to the moment; until then nobody takes it, whatever the clocks of nodes say.
"""

from __future__ import annotations

import json
from typing import final

from attrs import frozen

__all__ = ["Held", "is_over", "lease_seconds", "pack", "unpack"]


@final
@frozen
class Held:
    """Who holds a lock, and for how long."""

    owner: str
    seconds: int


def pack(held: Held) -> bytes:
    return json.dumps({"owner": held.owner, "seconds": held.seconds}, ensure_ascii=False).encode()


def unpack(raw: bytes) -> Held | None:
    """None for what no lock store has written."""
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    owner, seconds = found.get("owner"), found.get("seconds")
    return Held(owner, seconds) if isinstance(owner, str) and isinstance(seconds, int) else None


def lease_seconds(seconds: int) -> int:
    return seconds + 1


def is_over(held: Held, granted: int, left: int) -> bool:
    """`granted` is what the cluster made of the time asked for, `left` what is left of it; below 0: nothing.

    More than `granted - left - 1` seconds have passed.
    """
    return left < 0 or granted - left - 1 >= held.seconds
