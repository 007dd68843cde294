"""Stands in for the client library of the real system. Delete it, and call that library instead.

A server is an object that all share who open the same address. Every call is awaited, as one over a network
is, and raises `ConnectionError` while the server does not answer.
"""

from __future__ import annotations

from itertools import count
from typing import final

import trio
from attrs import frozen

__all__ = ["Lease", "Server", "server_at"]


@final
@frozen
class Lease:
    """Who holds a resource until when, in seconds since 1970."""

    owner: str
    token: int
    expires: float


@final
class Server:
    """Leases by resource. `now` is the time, for a stand-in has no clock of its own."""

    def __init__(self) -> None:
        self.answers = True
        self._leases: dict[str, Lease] = {}
        self._tokens = count(1)

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.answers:
            raise ConnectionError("the server does not answer")

    async def take(self, resource: str, owner: str, now: float, expires: float) -> Lease | None:
        """None where somebody holds it."""
        await self.ping()
        if self._held(resource, now) is not None:
            return None
        lease = Lease(owner, next(self._tokens), expires)
        self._leases[resource] = lease
        return lease

    async def release(self, resource: str, owner: str, now: float) -> Lease | None:
        """The lease that was there; it has ended if it was this owner's."""
        await self.ping()
        lease = self._held(resource, now)
        if lease is not None and lease.owner == owner:
            del self._leases[resource]
        return lease

    def _held(self, resource: str, now: float) -> Lease | None:
        lease = self._leases.get(resource)
        if lease is not None and lease.expires <= now:
            del self._leases[resource]
            return None
        return lease


_SERVERS: dict[str, Server] = {}


def server_at(address: str) -> Server:
    """The server of an address. It outlives its connections, as a real one does."""
    return _SERVERS.setdefault(address, Server())
