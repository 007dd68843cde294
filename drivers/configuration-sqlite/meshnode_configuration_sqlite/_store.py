"""The store: reading the table, and watching it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import final

import trio
from meshnode_sqlite_client import Worker

from meshnode.errors import ComponentError
from meshnode.interfaces import ConfigurationItem, DriverContext, Notify
from meshnode_configuration_sqlite import _rows
from meshnode_configuration_sqlite._options import Options

__all__ = ["SqliteConfiguration"]

Items = Mapping[str, ConfigurationItem]


@final
class SqliteConfiguration:
    """A `ConfigurationStore` on a table. The worker's connection never writes items, so that everything that
    is written shows as another connection's.
    """

    def __init__(self, options: Options, context: DriverContext, worker: Worker) -> None:
        self._table = options.table
        self._pause = options.poll_interval.total_seconds()
        self._context = context
        self._worker = worker

    async def get(self, keys: Sequence[str], metadata: Mapping[str, str]) -> Items:
        return await self._worker.call(partial(_rows.read, self._table, keys), writes=False)

    async def watch(
        self,
        keys: Sequence[str],
        metadata: Mapping[str, str],
        notify: Notify,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        # The mark first: what is written in between is seen by the next look.
        mark = await self._worker.call(_rows.mark, writes=False)
        known = await self.get(keys, metadata)
        task_status.started()
        troubled = False
        while not await _set_within(stop, self._pause):
            try:
                now = await self._worker.call(_rows.mark, writes=False)
                if now == mark:
                    continue
                found = await self.get(keys, metadata)
            except ComponentError as error:
                if not troubled:
                    self._context.log.warning("watching the configuration: %s", error)
                troubled = True
                continue
            mark, troubled = now, False
            changes = _changes(known, found)
            known = found
            if changes:
                await notify(changes)

    async def ping(self) -> None:
        await self._worker.call(_rows.mark, writes=False)


def _changes(known: Items, found: Items) -> dict[str, ConfigurationItem | None]:
    changes: dict[str, ConfigurationItem | None] = {key: None for key in known if key not in found}
    changes.update((key, item) for key, item in found.items() if known.get(key) != item)
    return changes


async def _set_within(event: trio.Event, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        await event.wait()
    return event.is_set()
