"""Some connections, made when they are needed; those that waited longest for their turn come first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import final

import trio

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode_postgresql._connection import Connection, Refused, connect
from meshnode_postgresql._options import ConnectionOptions

__all__ = ["Pool"]

_CONNECTIONS = 4


@final
class Pool:
    """`name` is for messages, `failure` the error for what trying again will not mend."""

    def __init__(self, options: ConnectionOptions, failure: type[ComponentError]) -> None:
        dsn = self._dsn = options.dsn()
        self._failure = failure
        self.limit = options.timeout.total_seconds()
        """Seconds that one operation may take."""
        self._connect_timeout = dsn.connect_timeout or self.limit
        self._max_idle = options.connection_max_idle_time.total_seconds() or dsn.max_idle
        most = options.max_conns if options.max_conns > 1 else dsn.max_connections or _CONNECTIONS
        self._slots = trio.Semaphore(most)
        self._idle: list[Connection] = []
        self.closed = False
        self.name = "PostgreSQL at " + (dsn.settings.get("host") or "the default address")

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A connection for one operation, which has to end within the time set for it."""
        with trio.move_on_after(self.limit) as scope:
            async with self.connection() as connection:
                yield connection
        if scope.cancelled_caught:
            raise self.late()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One for the caller alone; it comes back here if it may be used again."""
        async with self._slots:
            if self.closed:
                raise self._failure("component is closed")
            connection = self._take() or await self.connect()
            try:
                yield connection
            except Refused as refused:
                raise self.error(refused) from refused
            finally:
                if self.closed or not connection.idle:
                    connection.close()
                else:
                    connection.last_used = trio.current_time()
                    self._idle.append(connection)

    def error(self, refused: Refused) -> ComponentError:
        """The server's error in the node's words."""
        message = f"error executing query: {refused}"
        return ComponentUnavailable(message) if refused.passing else self._failure(message)

    def late(self) -> ComponentUnavailable:
        return ComponentUnavailable(f"{self.name} did not answer within {self.limit:g} s")

    def _take(self) -> Connection | None:
        """The one used last, so that the others may grow old."""
        self._close_old()
        while self._idle:
            connection = self._idle.pop()
            if connection.alive():
                return connection
            connection.close()
        return None

    async def connect(self) -> Connection:
        """A new one, the caller's to close."""
        with trio.move_on_after(self._connect_timeout):
            return await connect(self._dsn.settings)
        raise ComponentUnavailable(f"{self.name} did not answer within {self._connect_timeout:g} s")

    def _close_old(self) -> None:
        now = trio.current_time()
        kept = []
        for connection in self._idle:
            age, unused = now - connection.since, now - connection.last_used
            if age > self._dsn.max_lifetime or unused > self._max_idle:
                connection.close()
            else:
                kept.append(connection)
        self._idle = kept

    async def sweep(self) -> None:
        while True:
            await trio.sleep(self._dsn.sweep_period)
            self._close_old()

    def close(self) -> None:
        """What is under way goes on; its connection is closed afterwards."""
        self.closed = True
        while self._idle:
            self._idle.pop().close()
