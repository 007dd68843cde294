"""The store: reading keys, and watching them.

A notification only names a key; the watch reads it and tells what differs from what it told last. After
a connection was lost it reads all it watches, in the same way: so each change is told once, whether it was
heard of or found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import trio
from redis.exceptions import ResponseError

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode.interfaces import ConfigurationItem, DriverContext, Notify
from meshnode_redis._client import Client, unavailable
from meshnode_redis._command import on_asyncio, run
from meshnode_redis.configuration import _values
from meshnode_redis.configuration._feed import Feed
from meshnode_redis.configuration._news import News
from meshnode_redis.configuration._options import Options

__all__ = ["RedisConfiguration"]

Items = dict[str, ConfigurationItem]

_AT_ONCE = 256
_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


@final
class RedisConfiguration:
    """A `ConfigurationStore` on Redis."""

    def __init__(self, options: Options, context: DriverContext, client: Client) -> None:
        self._options = options
        self._context = context
        self._client = client

    async def get(self, keys: Sequence[str], metadata: Mapping[str, str]) -> Mapping[str, ConfigurationItem]:
        return await self._read(keys or await self._names())

    async def watch(
        self,
        keys: Sequence[str],
        metadata: Mapping[str, str],
        notify: Notify,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        news = News()
        feed = Feed(self._options, self._client, keys, news, self._context.log)
        failure: ComponentError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, feed, news)
            nursery.start_soon(_wake_at, stop, news)
            try:
                known = await self._begin(keys, feed, news)
                task_status.started()
                while not stop.is_set():
                    await self._tell(keys, known, news, notify, stop)
            except ComponentError as error:  # out of the nursery it would come in a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def ping(self) -> None:
        await self._client.ping()

    async def _listen(self, feed: Feed, news: News) -> None:
        """Connects again for as long as it takes."""
        pause = _PAUSE
        while True:
            begun = trio.current_time()
            await on_asyncio(feed.run)
            self._context.log.warning("the subscription's connection is lost: %s", feed.trouble)
            news.tell_everything()  # for the first attempt, which is waited for
            if trio.current_time() - begun > _LONGEST_PAUSE:
                pause = _PAUSE
            await trio.sleep(pause * self._context.rng.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _begin(self, keys: Sequence[str], feed: Feed, news: News) -> Items:
        """What is there when changes begin to be heard of."""
        await news.wait()
        if feed.trouble is not None:
            raise unavailable(self._options, feed.trouble)
        news.take()
        return dict(await self.get(keys, {}))

    async def _tell(
        self, keys: Sequence[str], known: Items, news: News, notify: Notify, stop: trio.Event
    ) -> None:
        """Waits for news, and tells what of it is new; brings `known` up to date."""
        await news.wait()
        if stop.is_set():
            return
        names = news.take()
        try:
            if names is None:
                found = await self.get(keys, {})
                before: Mapping[str, ConfigurationItem] = known
            else:
                found = await self._read(names)
                before = {name: known[name] for name in names if name in known}
        except ComponentError as error:
            if not isinstance(error, ComponentUnavailable):
                self._context.log.warning("reading what has changed: %s", error)
            with trio.move_on_after(_PAUSE):
                await stop.wait()
            news.tell_everything()
            return
        changes = _values.changes(before, found)
        for key, item in changes.items():
            if item is None:
                del known[key]
            else:
                known[key] = item
        if changes:
            await notify(changes)

    async def _read(self, names: Sequence[str]) -> Items:
        """What is no string is no item."""
        found: Items = {}
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            replies = await run([(self._client.lane(name), ("GET", name)) for name in some], repeatable=True)
            for name, reply in zip(some, replies, strict=True):
                if isinstance(reply, Exception):
                    if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
                        continue
                    raise self._client.error(reply)
                item = _values.item(reply)
                if item is not None:
                    found[name] = item
        return found

    async def _names(self) -> list[str]:
        names: dict[str, None] = {}
        for lane in self._client.lanes():
            cursor: int | bytes = 0
            while True:
                (reply,) = await run([(lane, ("SCAN", cursor, "COUNT", 1000))], repeatable=True)
                if isinstance(reply, Exception):
                    raise self._client.error(reply)
                cursor, page = reply
                for raw in page:
                    name = _values.key_of(raw, b"")
                    if name is not None:
                        names[name] = None
                if cursor == b"0":
                    break
        return sorted(names)


async def _wake_at(stop: trio.Event, news: News) -> None:
    await stop.wait()
    news.tell_everything()
