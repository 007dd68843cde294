"""The lock store: from meshnode's calls to the system's, and from its errors to meshnode's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import DriverContext, UnlockOutcome

from meshnode_lock_mine._system import Server

__all__ = ["Locks"]


@final
class Locks:
    """A `LockStore`. Looking at a lock and taking or releasing it is one step of the system's: between two
    steps somebody else could come.
    """

    def __init__(self, server: Server, context: DriverContext) -> None:
        self._server = server
        self._wall = context.wall

    async def try_lock(self, resource: str, owner: str, seconds: int) -> int | None:
        # The clock is read before the call: the lock ends no later than its taker reckons.
        now = self._wall()
        with _translated():
            lease = await self._server.take(resource, owner, now, now + seconds)
        return lease.token if lease is not None else None

    async def unlock(self, resource: str, owner: str) -> UnlockOutcome:
        with _translated():
            lease = await self._server.release(resource, owner, self._wall())
        if lease is None:
            return UnlockOutcome.LOCK_DOES_NOT_EXIST
        return UnlockOutcome.SUCCESS if lease.owner == owner else UnlockOutcome.LOCK_BELONGS_TO_OTHERS

    async def ping(self) -> None:
        with _translated():
            await self._server.ping()


@contextmanager
def _translated() -> Iterator[None]:
    """What the system's library raises becomes one of meshnode's errors here."""
    try:
        yield
    except OSError as error:
        raise ComponentUnavailable(str(error)) from error
