"""Who holds leases, and whether it is alive.

Every component that is open has a row in `pubsub_owners`, and a lock on a file of that number beside the
database. The system lets go of the lock when the process ends, however it ends; who can lock the file of
another knows that it is dead. (A process id would say less: it is given again, and means something else in
another container.)
"""

from __future__ import annotations

import fcntl
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import final

import trio
from meshnode_sqlite_client import Worker

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode.interfaces import DriverContext
from meshnode_pubsub_sqlite._rows import release
from meshnode_pubsub_sqlite._tables import file_of

__all__ = ["Owner", "bury", "dead_owners", "owning"]

_DEADLINE = 10.0


@final
class Owner:
    """One open component: a number nobody else has, locked until `close`. `path` is the database's."""

    def __init__(self, path: str, rng: random.Random) -> None:
        self.path = path
        while True:
            self.number = rng.getrandbits(62)
            self._lock = _lock_path(path, self.number)
            self._descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _try_to_lock(self._descriptor):
                return
            os.close(self._descriptor)

    def close(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._lock)
        os.close(self._descriptor)


def _lock_path(path: str, number: int) -> str:
    return f"{path}-owner-{number:016x}"


def _try_to_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@asynccontextmanager
async def owning(worker: Worker, context: DriverContext) -> AsyncIterator[Owner]:
    """An owner for as long as the block lasts; what it still holds then is free again."""
    path = await worker.call(file_of, writes=False)
    try:
        owner = Owner(path, context.rng)
    except OSError as error:
        raise ComponentUnavailable(f"beside sqlite database {path}: {error}") from error
    try:
        await worker.call(partial(_register, owner.number), writes=True)
        yield owner
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _DEADLINE):
            try:
                await worker.call(partial(bury, [owner.number]), writes=True)
            except ComponentError as error:
                context.log.warning("leases stay until somebody notices: %s", error)
        owner.close()


def _register(number: int, connection: sqlite3.Connection) -> None:
    """After the lock, so that nobody sees the row of an owner without one."""
    connection.execute("INSERT OR IGNORE INTO pubsub_owners VALUES (?)", (number,))


def dead_owners(path: str, own: int, connection: sqlite3.Connection) -> list[int]:
    """Those that ended without burying themselves."""
    others = connection.execute("SELECT id FROM pubsub_owners WHERE id <> ?", (own,)).fetchall()
    return [number for (number,) in others if _is_dead(_lock_path(path, number))]


def _is_dead(lock: str) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # not ours to judge; its leases lapse
    try:
        dead = _try_to_lock(descriptor)
        if dead:
            with suppress(FileNotFoundError):
                os.unlink(lock)
        return dead
    finally:
        os.close(descriptor)


def bury(numbers: Sequence[int], connection: sqlite3.Connection) -> int:
    """Their leases are free and their rows gone; how many leases that were."""
    freed = 0
    for number in numbers:
        freed += release(number, connection)
        connection.execute("DELETE FROM pubsub_owners WHERE id = ?", (number,))
    return freed
