"""The store: reading the table, and watching it.

The watch tells each change that it hears of, in the order of the commits. Where its connection was lost, or
where so much has happened that not all could be kept for a slow reader, it begins anew and tells what is
other than what it told last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import final

import trio

from meshnode.errors import ComponentError, InvalidArgument
from meshnode.interfaces import ConfigurationItem, DriverContext, Notify
from meshnode_postgresql._pool import Pool
from meshnode_postgresql._text import bad_channel
from meshnode_postgresql.configuration import _rows
from meshnode_postgresql.configuration._feed import Feed, Fresh, News
from meshnode_postgresql.configuration._items import Change, changed, news_of
from meshnode_postgresql.configuration._options import Options

__all__ = ["PostgresConfiguration"]

_MOST = 1000
"""Changes that are kept for a reader that is slow."""

_PAUSE, _LONGEST_PAUSE = 0.05, 2.0

Known = dict[str, ConfigurationItem]


@final
class PostgresConfiguration:
    """A `ConfigurationStore` on PostgreSQL."""

    def __init__(self, options: Options, context: DriverContext, pool: Pool) -> None:
        self._table = options.table
        self._channel = options.notify_channel
        self._context = context
        self._pool = pool

    async def get(self, keys: Sequence[str], metadata: Mapping[str, str]) -> Mapping[str, ConfigurationItem]:
        async with self._pool.session() as connection:
            return await _rows.read(connection, self._table, keys)

    async def watch(
        self,
        keys: Sequence[str],
        metadata: Mapping[str, str],
        notify: Notify,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        mark = f"meshnode_{self._context.rng.getrandbits(128):032x}"
        feed = Feed(self._pool, self._table, self._channel_of(metadata), keys, mark)
        send, receive = trio.open_memory_channel[News](_MOST)
        failure: ComponentError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_wake_at, stop, send)
            try:
                known: Known = await nursery.start(partial(self._listen, feed, send))
                task_status.started()
                while not stop.is_set():
                    await _tell(await receive.receive(), known, notify)
            except ComponentError as error:  # out of the nursery it would come in a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def ping(self) -> None:
        async with self._pool.session() as connection:
            await connection.simple("SELECT 1")

    def _channel_of(self, metadata: Mapping[str, str]) -> str:
        """The component's goes before the request's, as in Dapr."""
        given = next((value for name, value in metadata.items() if name.lower() == "pgnotifychannel"), "")
        channel = self._channel or given
        if not channel:
            raise InvalidArgument(
                f"unable to subscribe to '{self._table}'. pgNotifyChannel attribute cannot be empty"
            )
        if complaint := bad_channel(channel):
            raise InvalidArgument(f"pgNotifyChannel {complaint}")
        return channel

    async def _listen(
        self, feed: Feed, send: trio.MemorySendChannel[News], *, task_status: trio.TaskStatus[Known]
    ) -> None:
        """The first attempt has to succeed; later ones are made for as long as it takes."""
        begun = False
        pause = _PAUSE
        while True:
            try:
                async with feed.listening() as (connection, fresh):
                    pause = _PAUSE
                    if begun:
                        await send.send(fresh)
                    else:
                        task_status.started(_state(fresh))
                        begun = True
                    await feed.forward(connection, send)
            except ComponentError as error:
                if not begun:
                    raise
                self._context.log.warning("the subscription's connection: %s", error)
                await trio.sleep(pause * self._context.rng.uniform(0.5, 1.0))
                pause = min(2 * pause, _LONGEST_PAUSE)
            told = trio.Event()
            await send.send(told)
            await told.wait()


def _state(fresh: Fresh) -> Known:
    known = dict(fresh.items)
    for change in fresh.after:
        _learn(known, news_of(known, change))
    return known


def _learn(known: Known, changes: Mapping[str, ConfigurationItem | None]) -> None:
    for key, item in changes.items():
        if item is None:
            del known[key]
        else:
            known[key] = item


async def _tell(news: News, known: Known, notify: Notify) -> None:
    """Tells what of it is new, and brings `known` up to date."""
    match news:
        case Fresh():
            await _tell_changes(changed(known, news.items), known, notify)
            for change in news.after:
                await _tell_changes(news_of(known, change), known, notify)
        case Change():
            await _tell_changes(news_of(known, news), known, notify)
        case trio.Event():
            news.set()


async def _tell_changes(
    changes: Mapping[str, ConfigurationItem | None], known: Known, notify: Notify
) -> None:
    if changes:
        _learn(known, changes)
        await notify(changes)


async def _wake_at(stop: trio.Event, send: trio.MemorySendChannel[News]) -> None:
    await stop.wait()
    await send.send(None)
