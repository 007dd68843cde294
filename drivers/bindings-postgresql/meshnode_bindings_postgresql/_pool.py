"""Some connections, made when they are needed; those that waited longest for their turn come first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import final

import trio

from meshnode.errors import BindingError, ComponentUnavailable
from meshnode_bindings_postgresql._connection import Connection, connect
from meshnode_bindings_postgresql._dsn import Dsn
from meshnode_bindings_postgresql._options import Options

__all__ = ["Pool"]

_CONNECTIONS = 4


@final
class Pool:
    """`name` is for messages."""

    def __init__(self, dsn: Dsn, options: Options) -> None:
        self._dsn = dsn
        self._timeout = dsn.connect_timeout or options.timeout.total_seconds()
        self._max_idle = options.connection_max_idle_time.total_seconds() or dsn.max_idle
        most = options.max_conns if options.max_conns > 1 else dsn.max_connections or _CONNECTIONS
        self._slots = trio.Semaphore(most)
        self._idle: list[Connection] = []
        self.closed = False
        self.name = "PostgreSQL at " + (dsn.settings.get("host") or "the default address")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One for the caller alone; it comes back here if it may be used again."""
        async with self._slots:
            if self.closed:
                raise BindingError("component is closed")
            connection = self._take() or await self._connect()
            try:
                yield connection
            finally:
                if self.closed or not connection.idle:
                    connection.close()
                else:
                    connection.last_used = trio.current_time()
                    self._idle.append(connection)

    def _take(self) -> Connection | None:
        """The one used last, so that the others may grow old."""
        self._close_old()
        while self._idle:
            connection = self._idle.pop()
            if connection.alive():
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        with trio.move_on_after(self._timeout):
            return await connect(self._dsn.settings)
        raise ComponentUnavailable(f"{self.name} did not answer within {self._timeout:g} s")

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
