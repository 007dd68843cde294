"""Whether a history of locking and unlocking can have come from a sound lock. Pure.

An operation took effect somewhere between its beginning and its end; one that was never answered, at any time
after its beginning or not at all. Owners are used for one attempt each, so a release belongs to one lock.

    surely held    from the grant's end to the first try to release it, or its beginning plus its time
    perhaps held   from the attempt's beginning to the release's end, or its own end plus its time

A backend may begin the time of what is held anew after an outage, as etcd does when a leader takes over: what
was perhaps held when it began is then perhaps held for its whole time after the end. Surely nobody holds
anything for longer.
"""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import final

from attrs import frozen

__all__ = ["Answer", "Operation", "violations"]


class Answer(enum.Enum):
    GRANTED = "granted"
    REFUSED = "refused"
    RELEASED = "released"
    ABSENT = "absent"
    OTHERS = "others"
    UNKNOWN = "unknown"


@frozen
class Operation:
    """A try to lock (`seconds` says for how long) or, without `seconds`, to unlock."""

    resource: str
    owner: str
    began: float
    ended: float = math.inf
    answer: Answer = Answer.UNKNOWN
    seconds: float = 0.0
    token: int = 0


@final
@frozen
class _Hold:
    """What is known of one lock that was taken, or may have been."""

    lock: Operation
    releases: Sequence[Operation]
    outages: Sequence[tuple[float, float]] = ()

    @property
    def surely(self) -> tuple[float, float]:
        given_up = min((one.began for one in self.releases), default=math.inf)
        return self.lock.ended, min(given_up, self.lock.began + self.lock.seconds)

    @property
    def perhaps(self) -> tuple[float, float]:
        done = (one.ended for one in self.releases if one.answer is Answer.RELEASED)
        over = self.lock.ended + self.lock.seconds
        for began, ended in self.outages:
            if self.lock.began < ended and began <= over:
                over = max(over, ended + self.lock.seconds)
        return self.lock.began, min(*done, over, math.inf)


def violations(
    history: Iterable[Operation], slack: float = 0.0, outages: Sequence[tuple[float, float]] = ()
) -> list[str]:
    """What is wrong, in words. `slack`: seconds by which the clocks of backend and history may differ.

    `outages`, in their order: when each began and ended, of a backend that then begins times anew.
    """
    apart: defaultdict[str, list[Operation]] = defaultdict(list)
    for one in history:
        apart[one.resource].append(one)
    return [found for operations in apart.values() for found in _of_resource(operations, slack, outages)]


def _of_resource(
    operations: Sequence[Operation], slack: float, outages: Sequence[tuple[float, float]]
) -> Iterator[str]:
    releases: defaultdict[str, list[Operation]] = defaultdict(list)
    for one in operations:
        if not one.seconds:
            releases[one.owner].append(one)
    holds = [
        _Hold(one, releases[one.owner], outages)
        for one in operations
        if one.seconds and one.answer is not Answer.REFUSED
    ]
    granted = [hold for hold in holds if hold.lock.answer is Answer.GRANTED]
    yield from _two_holders(granted, slack)
    yield from _tokens_that_fall([hold.lock for hold in granted])
    yield from _wrong_refusals(operations, holds, slack)
    yield from _wrong_releases(operations, holds, slack)


def _two_holders(granted: Sequence[_Hold], slack: float) -> Iterator[str]:
    held = sorted((hold for hold in granted if _length(hold.surely) > slack), key=lambda hold: hold.surely)
    for before, after in pairwise(held):
        if after.surely[0] < before.surely[1] - slack:
            yield f"{before.lock.owner} and {after.lock.owner} both held {before.lock.resource}"


def _tokens_that_fall(locks: Sequence[Operation]) -> Iterator[str]:
    """Of two grants one after the other, the later has the greater token; no two have the same."""
    for before, after in pairwise(sorted(locks, key=lambda one: one.token)):
        if before.token == after.token:
            yield f"{before.owner} and {after.owner} have the same token {before.token}"
    highest: Operation | None = None
    finished = iter(sorted(locks, key=lambda one: one.ended))
    waiting = next(finished, None)
    for one in sorted(locks, key=lambda one: one.began):
        while waiting is not None and waiting.ended < one.began:
            if highest is None or waiting.token > highest.token:
                highest = waiting
            waiting = next(finished, None)
        if highest is not None and one.token < highest.token:
            yield f"{one.owner} got token {one.token} after {highest.owner} had {highest.token}"


def _wrong_refusals(operations: Sequence[Operation], holds: Sequence[_Hold], slack: float) -> Iterator[str]:
    for one in operations:
        if one.answer is Answer.REFUSED and not any(_meets(hold.perhaps, one, slack) for hold in holds):
            yield f"{one.owner} was refused {one.resource}, which nobody can have held"


def _wrong_releases(operations: Sequence[Operation], holds: Sequence[_Hold], slack: float) -> Iterator[str]:
    own = {hold.lock.owner: hold for hold in holds}
    for one in operations:
        hold = own.get(one.owner)
        if one.answer is Answer.RELEASED and (hold is None or not _meets(hold.perhaps, one, slack)):
            yield f"{one.owner} released {one.resource}, which it cannot have held"
        if one.answer in (Answer.ABSENT, Answer.OTHERS) and hold is not None:
            first = all(other is one or other.began > one.ended for other in hold.releases)
            in_time = one.ended < hold.lock.began + hold.lock.seconds - slack
            if hold.lock.answer is Answer.GRANTED and first and in_time and hold.lock.ended < one.began:
                yield f"{one.owner} had lost {one.resource} before its time"


def _length(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def _meets(interval: tuple[float, float], one: Operation, slack: float) -> bool:
    return interval[0] <= one.ended + slack and one.began <= interval[1] + slack
