"""What goes on in the background while the component is open."""

from __future__ import annotations

import os
from functools import partial
from typing import final

import trio
from meshnode_sqlite_client import Worker

from meshnode.errors import ComponentError
from meshnode.interfaces import DriverContext
from meshnode_pubsub_sqlite import _rows, _sweeping
from meshnode_pubsub_sqlite._bells import Bells
from meshnode_pubsub_sqlite._options import Options
from meshnode_pubsub_sqlite._owners import Owner, bury, dead_owners
from meshnode_pubsub_sqlite._rows import Lease
from meshnode_pubsub_sqlite._sweeping import Limits

__all__ = ["Tending"]

_LOOK_AFTER_OTHERS = 1.0
_SWEEP = 10.0
_SLOWER, _SLOWEST = 1.1, 5


@final
class Tending:
    """Keeps `leases` alive, notices other processes, removes what is over. Its methods but `until` are the
    component's to run; none of them ends by itself.
    """

    def __init__(
        self, options: Options, context: DriverContext, worker: Worker, owner: Owner, bells: Bells
    ) -> None:
        self._lease_seconds = options.lease_duration.total_seconds()
        self._poll_seconds = options.poll_interval.total_seconds()
        self._retention = options.retention.total_seconds()
        self._unclaimed_retention = options.unclaimed_retention.total_seconds()
        self._context = context
        self._worker = worker
        self._bells = bells
        self.owner = owner
        self.leases: set[Lease] = set()
        """Those of the deliveries that are under way."""

    def until(self) -> float:
        """When a lease taken or renewed now lapses."""
        return self._context.wall() + self._lease_seconds

    async def renew(self) -> None:
        """A lease that is not here any more is not renewed, and lapses."""
        while True:
            await trio.sleep(self._lease_seconds / 3)
            if self.leases:
                action = partial(_rows.renew, tuple(self.leases), self.until())
                try:
                    await self._worker.call(action, writes=True, durable=False)
                except ComponentError as error:
                    self._context.log.warning("renewing leases: %s", error)

    async def listen(self) -> None:
        """Rings when another process, or we, wrote to the file: the log's size or time of change tell.

        Two writes within one tick of the file system's clock may look like one; `bury` rings in any case.
        While nothing changes it looks less and less often: waking up is what costs, not looking.
        """
        log, seen, pause = f"{self.owner.path}-wal", (0, 0), self._poll_seconds
        while True:
            await self._bells.somebody_listens()
            await trio.sleep(pause)
            mark = _mark(log)
            if mark != seen:
                seen, pause = mark, self._poll_seconds
                self._bells.ring_all()
            else:
                pause = min(pause * _SLOWER, self._poll_seconds * _SLOWEST)

    async def bury(self) -> None:
        """Takes over at once what a process holds that has ended."""
        look = partial(dead_owners, self.owner.path, self.owner.number)
        while True:
            await self._bells.somebody_listens()
            try:
                dead = await self._worker.call(look, writes=False)
                if dead:
                    freed = await self._worker.call(partial(bury, dead), writes=True, durable=False)
                    self._context.log.info("a process ended without notice: %d messages come again", freed)
            except ComponentError as error:
                self._context.log.warning("looking after other processes: %s", error)
            self._bells.ring_all()
            await trio.sleep(_LOOK_AFTER_OTHERS)

    async def sweep(self) -> None:
        """Removes what has expired unseen, and what has been kept for long enough."""
        while True:
            unclaimed = 0
            try:
                more = True
                while more:
                    limits = self._limits()
                    look = partial(_sweeping.something_to_sweep, limits)
                    action = partial(_sweeping.sweep, limits)
                    swept = await self._worker.call(action, writes=look, durable=False)
                    more, unclaimed = swept.more, unclaimed + swept.unclaimed
            except ComponentError as error:
                self._context.log.warning("removing old messages: %s", error)
            if unclaimed:
                text = "nobody had subscribed to the topics of %d messages within %gs: they are gone"
                self._context.log.info(text, unclaimed, self._unclaimed_retention)
            await trio.sleep(_SWEEP)

    def _limits(self) -> Limits:
        now = self._context.wall()
        return Limits(
            now=now,
            finished=now - self._retention,
            unclaimed=now - self._unclaimed_retention,
            keep=self._retention > 0,
        )


def _mark(path: str) -> tuple[int, int]:
    """(Quick enough to be done in the loop: the system has it in memory.)"""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size
