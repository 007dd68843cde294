"""The configuration store: from meshnode's calls to the system's, and from its errors to meshnode's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import final

import trio
from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import ConfigurationItem, DriverContext, Notify, open_deliveries

from meshnode_configuration_mine._system import Server, Snapshot

__all__ = ["Items"]

_PAUSE = 1.0
"""Seconds before a server that was away is asked again."""


@final
class Items:
    """A `ConfigurationStore`. A watch waits for a later revision, reads, and tells what differs."""

    def __init__(self, server: Server, context: DriverContext) -> None:
        self._server = server
        self._log = context.log

    async def get(self, keys: Sequence[str], metadata: Mapping[str, str]) -> Mapping[str, ConfigurationItem]:
        return _items(await self._read(keys))

    async def watch(
        self,
        keys: Sequence[str],
        metadata: Mapping[str, str],
        notify: Notify,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        known = await self._read(keys)
        task_status.started()
        async with open_deliveries(limit=1, stop=stop) as deliveries:
            while not stop.is_set():
                found = await deliveries.unless_stopped(partial(self._after, known.revision, keys))
                if found is None:
                    return
                changes = _changes(_items(known), _items(found))
                known = found
                if changes:
                    await notify(changes)

    async def ping(self) -> None:
        with _translated():
            await self._server.ping()

    async def _read(self, keys: Sequence[str]) -> Snapshot:
        with _translated():
            return await self._server.read(keys)

    async def _after(self, revision: int, keys: Sequence[str]) -> Snapshot:
        """What is there after a later revision has come, however often the server is away meanwhile."""
        troubled = False
        while True:
            try:
                with _translated():
                    await self._server.newer(revision)
                return await self._read(keys)
            except ComponentUnavailable as error:
                if not troubled:
                    self._log.warning("watching the configuration: %s", error)
                troubled = True
            await trio.sleep(_PAUSE)


@contextmanager
def _translated() -> Iterator[None]:
    """What the system's library raises becomes one of meshnode's errors here."""
    try:
        yield
    except OSError as error:
        raise ComponentUnavailable(str(error)) from error


def _items(snapshot: Snapshot) -> dict[str, ConfigurationItem]:
    return {key: ConfigurationItem(item.value, item.version) for key, item in snapshot.items.items()}


def _changes(
    known: Mapping[str, ConfigurationItem], found: Mapping[str, ConfigurationItem]
) -> dict[str, ConfigurationItem | None]:
    changes: dict[str, ConfigurationItem | None] = {key: None for key in known if key not in found}
    changes.update((key, item) for key, item in found.items() if known.get(key) != item)
    return changes
