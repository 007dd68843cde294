"""The resolver: statements in threads, and the task that keeps the own row alive."""

from __future__ import annotations

import math
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, ParamSpec, TypeVar, final

import trio

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode.interfaces import DriverContext, Instance, lone_error
from meshnode_nameresolution_sqlite._database import Database, Row
from meshnode_nameresolution_sqlite._options import SqliteOptions

__all__ = ["RegistrationLost", "SqliteResolver"]

P = ParamSpec("P")
T = TypeVar("T")

OPEN_ATTEMPTS: Final = 20
RETRY: Final = 0.5
"""Seconds until a refresh that failed is tried again."""
KEEP_DEAD: Final = 60
"""Seconds a dead row is left alone: a daprd that was suspended ends itself when it wakes up and finds no row.
"""


class RegistrationLost(ComponentError):
    """Another process registered this node's address: two nodes believe that they listen there, and one is
    wrong.
    """


@final
class SqliteResolver:
    """Fulfils `NameResolver`. Made by `open`."""

    def __init__(self, database: Database, options: SqliteOptions, context: DriverContext) -> None:
        self._database = database
        self._options = options
        self._context = context
        self._age: Final = int(options.update_interval.total_seconds())
        # A connection serves one thread at a time; lookups and writes have one each.
        self._reading = trio.CapacityLimiter(1)
        self._writing = trio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def open(cls, options: SqliteOptions, context: DriverContext) -> AsyncIterator[SqliteResolver]:
        database = await _open_database(options, context)
        try:
            yield cls(database, options, context)
        finally:
            with trio.CancelScope(shield=True):  # bounded: closing waits for nobody
                await trio.to_thread.run_sync(database.close)

    @property
    def max_age(self) -> float:
        # Half of what the registry itself tolerates: an answer is never reused when its rows may all be dead.
        return self._age / 2

    async def resolve(self, app_id: str, namespace: str) -> tuple[str, ...]:
        with _translated("failed to look up address"):
            return await self._read(self._database.lookup, app_id, namespace, self._now() - self._age)

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        registration = uuid.UUID(int=self._context.rng.getrandbits(128), version=4)
        row = Row(str(registration), instance.address, instance.app_id, instance.namespace)
        try:
            with _translated("failed to register host"):
                await self._write(self._database.register, row, self._now())
            with lone_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_registered, row)
                    nursery.start_soon(self._keep_clean, row)
                    yield
                    nursery.cancel_scope.cancel()
        finally:
            await self._unregister(row)

    async def _keep_registered(self, row: Row) -> None:
        """Refreshes the row a second early, besides the time an operation may take: its age is counted in
        whole seconds.
        """
        margin = self._options.timeout.total_seconds()
        period = max((self._age - margin) / 2, self._age - margin - 1)
        pause = period
        while True:
            await trio.sleep(pause)
            try:
                await self._refresh(row)
                pause = period
            except sqlite3.Error as error:
                self._context.log.error(  # noqa: TRY400 - the message says it all
                    "Failed to update host registration: database error: %s", error
                )
                pause = min(RETRY, period)

    async def _refresh(self, row: Row) -> None:
        now = self._now()
        if await self._write(self._database.refresh, row, now):
            self._context.log.debug("Host registration of %s refreshed", row.address)
        elif await self._write(self._database.restore, row, now):
            self._context.log.warning("Host registration of %s was gone and has been made again", row.address)
        else:
            self._context.log.error("Host registration lost")
            raise RegistrationLost(f"host registration lost: another process registered {row.address}")

    async def _keep_clean(self, own: Row) -> None:
        interval = self._options.cleanup_interval.total_seconds()
        while interval > 0:
            await trio.sleep(interval)
            now = self._now()
            try:
                removed = await self._write(
                    self._database.clean_up, own, now, math.floor(interval), now - self._age - KEEP_DEAD
                )
            except sqlite3.Error as error:
                self._context.log.error(  # noqa: TRY400 - as above
                    "Error removing expired data: %s", error
                )
                continue
            if removed is not None:
                self._context.log.info("Removed %d expired rows", removed)

    async def _unregister(self, row: Row) -> None:
        with trio.CancelScope(shield=True):  # bounded by busyTimeout, which SQLite itself keeps
            try:
                await self._write(self._database.unregister, row)
            except sqlite3.Error as error:
                self._context.log.warning("Failed to unregister host: %s", error)

    async def _read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await trio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=self._reading)

    async def _write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await trio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=self._writing)

    def _now(self) -> int:
        return int(self._context.wall())


async def _open_database(options: SqliteOptions, context: DriverContext) -> Database:
    """Opens the file. Nodes that start together on a new file get in each other's way, so a locked one is
    tried again.
    """
    for attempt in range(OPEN_ATTEMPTS):
        try:
            return await trio.to_thread.run_sync(Database, options)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == OPEN_ATTEMPTS - 1:
                raise _failure(options, error) from error
            await trio.sleep(context.rng.uniform(0.01, 0.1))
        except (sqlite3.Error, OSError) as error:
            raise _failure(options, error) from error
    raise AssertionError("unreachable: the last attempt returns or raises")


def _failure(options: SqliteOptions, error: Exception) -> ComponentUnavailable:
    return ComponentUnavailable(f"failed to open SQLite file {options.connection_string!r}: {error}")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ComponentUnavailable(f"{what}: {error}") from error
