"""Some connections, made when they are needed; callers that waited longest come first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, final

import trio

from meshnode.errors import ComponentUnavailable, StateError, Status
from meshnode_state_mysql._connection import Connection, Login, Session, connect
from meshnode_state_mysql._errors import InDoubt

__all__ = ["Pool"]

T = TypeVar("T")

_CONNECTIONS = 10
_MAX_WAITING = 10_000


@final
class Pool:
    """`timeout` is in seconds, for one job with everything that it waits for."""

    def __init__(self, login: Login, timeout: float) -> None:
        self._login = login
        self._timeout = timeout
        self._slots = trio.Semaphore(_CONNECTIONS)
        self._idle: list[Connection] = []
        self._running: set[trio.CancelScope] = set()
        self._closed = False
        self.address = login.dsn.address
        self._name = f"mysql at {self.address}"

    async def run(self, job: Callable[[Session], T], *, writes: bool = False) -> T:
        """What the job returns. Raises `InDoubt` where a write may have been executed all the same."""
        if self._slots.statistics().tasks_waiting >= _MAX_WAITING:
            message = f"too many operations wait for {self._name}"
            raise StateError(message, status=Status.RESOURCE_EXHAUSTED)
        with trio.move_on_after(self._timeout) as scope:
            self._running.add(scope)
            begun = False
            try:
                if self._closed:
                    raise self._gone()
                async with self._connection() as connection:
                    begun = True
                    return await connection.run(job)
            finally:
                self._running.discard(scope)
        gone = self._gone()
        raise InDoubt(gone.message) if writes and begun else gone

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._slots:
            connection = self._take() or await self._connect()
            try:
                yield connection
            finally:
                if self._closed or not connection.reusable:
                    connection.close()
                else:
                    self._idle.append(connection)

    def _take(self) -> Connection | None:
        """The one used last. A server that restarted has ended them all."""
        while self._idle:
            connection = self._idle.pop()
            if connection.alive():
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        limit = self._login.dsn.timeout or self._timeout
        with trio.move_on_after(limit):
            return await connect(self._login, self._kill)
        raise ComponentUnavailable(f"{self._name} did not let us in within {limit:g} s")

    async def _kill(self, number: int) -> None:
        """Over a connection of its own, beyond the limit: those within it may all be waiting."""
        connection = await connect(self._login, self._kill)
        try:
            await connection.run(lambda session: session.execute(f"KILL QUERY {number:d}"))
        finally:
            connection.close()

    def _gone(self) -> ComponentUnavailable:
        if self._closed:
            return ComponentUnavailable(f"{self._name}: the component is closed")
        return ComponentUnavailable(f"{self._name} did not answer within {self._timeout:g} s")

    def close(self) -> None:
        """What is under way ends with an error."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        for scope in self._running:
            scope.cancel()
