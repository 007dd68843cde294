"""What the node knows of a request while it lives: who asked what, until when, and what its policies did.
The admin API shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import final

import trio

from meshnode.resiliency import Policy, RequestView
from meshnode.transport import Deadline

__all__ = ["Call", "LiveCalls"]


@final
class Call:
    """One request in progress; made on every call, so it holds little. Times are the trio clock's."""

    __slots__ = ("deadline", "id", "method", "peer", "policy", "started", "target", "view")

    def __init__(self, number: int, method: str, peer: str, deadline: Deadline | None) -> None:
        self.id = number
        self.method = method
        self.peer = peer
        self.deadline = deadline
        self.started = trio.current_time()
        self.target = ""
        self.view: RequestView | None = None
        self.policy: Policy | None = None

    @property
    def ends(self) -> float | None:
        """The deadline on the trio clock, None without one."""
        return None if self.deadline is None else self.deadline.at

    def watched(self, policy: Policy, target: str) -> RequestView:
        """The view into which a policy writes its attempts; made only where there is a policy."""
        self.policy = policy
        if self.view is None:
            self.view = RequestView(target=target)
        return self.view


@final
class LiveCalls:
    """The requests in progress, and how many there have been."""

    __slots__ = ("_live", "_numbers", "_waited_for", "total")

    def __init__(self) -> None:
        self._live: dict[int, Call] = {}
        self._numbers = count(1)
        self._waited_for: dict[int, trio.Event] = {}
        self.total = 0

    def begin(self, method: str, peer: str, deadline: Deadline | None) -> Call:
        call = Call(next(self._numbers), method, peer, deadline)
        self._live[call.id] = call
        self.total += 1
        return call

    def end(self, call: Call) -> None:
        del self._live[call.id]
        if self._waited_for:
            waited = self._waited_for.pop(call.id, None)
            if waited is not None:
                waited.set()

    async def ended(self, call: Call) -> None:
        """Return once a request is no longer in progress."""
        if call.id in self._live:
            await self._waited_for.setdefault(call.id, trio.Event()).wait()

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self._live.values()))
