"""What goes wrong and when: a schedule that a seed decides. Pure."""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from typing import final

from attrs import frozen

__all__ = ["Fault", "Kind", "link", "schedule"]

_CALM = 0.3
"""Seconds at the beginning, and between the end of a target's fault and its next one."""
_SHORTEST, _LONGEST = 0.05, 1.2
_PER_SECOND = 1.5


class Kind(enum.Enum):
    """Processes are killed (and started again) or paused, nodes also asked to end or given other resources;
    links are cut, in three ways.
    """

    KILL = "kill"
    STOP = "stop"
    PAUSE = "pause"
    CHANGE = "change"
    """The node's file says something else of its broker, which it is to go by without a restart."""
    HOLD = "hold"
    """Bytes wait, and arrive in the end."""
    RESET = "reset"
    """Connections are reset, and new ones refused."""
    SWALLOW = "swallow"
    """Bytes vanish without a sign; in the end all connections are reset."""


_OF_NODES = (Kind.KILL, Kind.KILL, Kind.STOP, Kind.PAUSE, Kind.PAUSE, Kind.CHANGE, Kind.CHANGE)
_OF_OTHERS = (Kind.KILL, Kind.PAUSE)
_OF_LINKS = (Kind.HOLD, Kind.RESET, Kind.SWALLOW)


@final
@frozen
class Fault:
    """`at` and `seconds` count from the beginning of the run's faults."""

    at: float
    kind: Kind
    target: str
    seconds: float

    @property
    def end(self) -> float:
        return self.at + self.seconds


def link(one: str, other: str) -> str:
    """The name of the way between two."""
    return f"{one}/{other}"


def schedule(
    rng: random.Random,
    seconds: float,
    *,
    nodes: Sequence[str] = (),
    others: Sequence[str] = (),
    links: Sequence[str] = (),
) -> tuple[Fault, ...]:
    """Faults in the order of their beginnings; all have ended after `seconds`. A target has one at a time;
    several targets may have theirs at once. `others` are the processes that are no nodes.
    """
    kinds = {
        **dict.fromkeys(nodes, _OF_NODES),
        **dict.fromkeys(others, _OF_OTHERS),
        **dict.fromkeys(links, _OF_LINKS),
    }
    free_at = dict.fromkeys(kinds, 0.0)
    faults = []
    at = _CALM
    while seconds - at > _SHORTEST:
        free = [target for target, when in free_at.items() if when <= at]
        if free:
            target = rng.choice(free)
            lasting = min(rng.uniform(_SHORTEST, _LONGEST), seconds - at)
            fault = Fault(at, rng.choice(kinds[target]), target, lasting)
            free_at[target] = fault.end + _CALM
            faults.append(fault)
        at += rng.expovariate(_PER_SECOND)
    return tuple(faults)
