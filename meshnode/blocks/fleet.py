"""What a node keeps running in the background, by key, while the wish for it may change: subscriptions, input
bindings, outbox relays.

One that is no longer wanted is told to stop and ends what it has under way; what takes its place under the
same key begins after that, because a broker may know both by one name, and order is to be kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Generic, Protocol, TypeVar, final

import trio

__all__ = ["Fleet", "Kept", "pass_on"]


class Kept(Protocol):
    """What is kept ends some time after its `stop`, when all it had under way has ended or is given back."""

    @property
    def stop(self) -> trio.Event: ...


K = TypeVar("K", bound=Kept)


@final
class _Member(Generic[K]):
    """One that is being kept, in the place of `before` once that has ended."""

    def __init__(self, what: K, before: _Member[K] | None) -> None:
        self.what = what
        self.before = before
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    async def run(self, keep: Callable[[K], Awaitable[None]]) -> None:
        try:
            with self.scope:
                if self.before is not None:
                    await self.before.ended.wait()
                    self.before = None
                if not self.what.stop.is_set():
                    await keep(self.what)
        finally:
            self.ended.set()


@final
class Fleet(Generic[K]):
    """`run` keeps what `want` was last told, each by a task in `keep`, until `stop` is set and all have
    ended.
    """

    def __init__(self, stop: trio.Event, keep: Callable[[K], Awaitable[None]]) -> None:
        self._stop = stop
        self._keep = keep
        self._wanted: dict[Hashable, K] = {}
        self._members: dict[Hashable, _Member[K]] = {}
        self._ending: dict[_Member[K], None] = {}
        self._changed = trio.Event()

    def want(self, wanted: Mapping[Any, K]) -> None:
        """What is to run from now on. The very same object under the same key simply goes on."""
        self._wanted = dict(wanted)
        for key, member in self._members.items():
            if self._wanted.get(key) is not member.what:
                self._end(member)
        self._changed.set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_all_at_stop)
            while not self._stop.is_set():
                changed = self._changed = trio.Event()
                for key, what in self._wanted.items():
                    before = self._members.get(key)
                    if before is None or before.what is not what:
                        member = self._members[key] = _Member(what, before)
                        nursery.start_soon(self._run, key, member)
                await changed.wait()

    async def settled(self, patience: float) -> None:
        """Return when nothing runs any more that is not wanted; what takes longer than `patience` seconds is
        cancelled.
        """
        ending = tuple(self._ending)
        with trio.move_on_after(patience):
            for member in ending:
                await member.ended.wait()
        for member in ending:
            member.scope.cancel()
            await member.ended.wait()

    async def _run(self, key: Hashable, member: _Member[K]) -> None:
        try:
            await member.run(self._keep)
        finally:
            self._ending.pop(member, None)
            if self._members.get(key) is member:
                del self._members[key]

    def _end(self, member: _Member[K]) -> None:
        member.what.stop.set()
        self._ending[member] = None

    async def _end_all_at_stop(self) -> None:
        await self._stop.wait()
        for member in self._members.values():
            member.what.stop.set()
        self._changed.set()


async def pass_on(stop: trio.Event, mine: trio.Event) -> None:
    """Set `mine` when `stop` is."""
    await stop.wait()
    mine.set()
