"""Connections that only listen (asyncio side): one to each server that holds data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from meshnode_redis._client import Client
from meshnode_redis._command import TROUBLE, Lost
from meshnode_redis._lane import Connector
from meshnode_redis.configuration import _values
from meshnode_redis.configuration._news import News
from meshnode_redis.configuration._options import Options

__all__ = ["Feed"]

_MESSAGES = (b"message", b"pmessage")


@final
class Feed:
    """Tells `news` which keys have changed; when it has (again) begun to listen, everything."""

    def __init__(
        self, options: Options, client: Client, keys: Sequence[str], news: News, log: logging.Logger
    ) -> None:
        self._beat = options.beat
        self._client = client
        # A cluster has no other database.
        self._prefix = _values.prefix(options.db if options.type == "node" else 0)
        if keys:
            self._asked: tuple[Any, ...] = ("SUBSCRIBE", *(self._prefix + key.encode() for key in keys))
        else:
            self._asked = ("PSUBSCRIBE", self._prefix + b"*")
        self._news = news
        self._log = log
        self.trouble: Exception | None = None
        """Why it ended."""

    async def run(self) -> None:
        """Listens until a connection breaks."""
        self.trouble = None
        opened: list[tuple[Connector, AbstractConnection]] = []
        try:
            for connector in self._client.connectors():
                connection = await connector.open()
                opened.append((connector, connection))
                async with asyncio.timeout(2 * self._beat):
                    await self._begin(connection)
            self._news.tell_everything()
            async with asyncio.TaskGroup() as group:
                for _, connection in opened:
                    group.create_task(self._listen(connection))
        except* (*TROUBLE, Lost) as error:
            self.trouble = _first(error)
        finally:
            for connector, connection in opened:
                await connector.close(connection)

    async def _begin(self, connection: AbstractConnection) -> None:
        await self._enable(connection)
        await connection.send_command(*self._asked, check_health=False)
        missing = len(self._asked) - 1
        while missing:
            missing -= not self._take(await connection.read_response(disconnect_on_error=False))

    async def _enable(self, connection: AbstractConnection) -> None:
        """A server that does not let itself be set may have been set by its owner."""
        try:
            await connection.send_command("CONFIG", "GET", "notify-keyspace-events", check_health=False)
            answer = await connection.read_response(disconnect_on_error=False)
            flags = _values.with_flags(bytes(answer[1]).decode() if answer else "")
            if flags is not None:
                await connection.send_command(
                    "CONFIG", "SET", "notify-keyspace-events", flags, check_health=False
                )
                await connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            self._log.warning("notify-keyspace-events cannot be set (it has to have K and A): %s", error)

    async def _listen(self, connection: AbstractConnection) -> None:
        """A server that says nothing is asked; one that does not answer is gone."""
        loop = asyncio.get_running_loop()
        heard = loop.time()

        async def ask() -> None:
            while True:
                await asyncio.sleep(self._beat)
                if loop.time() - heard > 2 * self._beat:
                    raise Lost("no answer in time", sent=True)
                await connection.send_command("PING", check_health=False)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            while True:
                self._take(await connection.read_response(disconnect_on_error=False))
                heard = loop.time()

    def _take(self, message: Any) -> bool:
        """Whether it told of a key."""
        if not isinstance(message, list) or message[0] not in _MESSAGES:
            return False
        key = _values.key_of(message[-2], self._prefix)
        if key is not None:
            self._news.tell(key)
        return True


def _first(error: BaseException) -> Exception:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
