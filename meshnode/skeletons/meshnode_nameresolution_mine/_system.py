"""Stands in for the client library of the real system. Delete it, and call that library instead.

A server is an object that all share who open the same address. Every call is awaited, as one over a network
is, and raises `ConnectionError` while the server does not answer.
"""

from __future__ import annotations

from typing import final

import trio

__all__ = ["Server", "server_at"]


@final
class Server:
    """Addresses by app id and namespace."""

    def __init__(self) -> None:
        self.answers = True
        self._entries: dict[tuple[str, str], list[str]] = {}

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.answers:
            raise ConnectionError("the server does not answer")

    async def register(self, app_id: str, namespace: str, address: str) -> None:
        await self.ping()
        self._entries.setdefault((app_id, namespace), []).append(address)

    async def deregister(self, app_id: str, namespace: str, address: str) -> None:
        """Nothing happens where it is not registered."""
        await self.ping()
        entries = self._entries.get((app_id, namespace), [])
        if address in entries:
            entries.remove(address)
        if not entries:
            self._entries.pop((app_id, namespace), None)

    async def find(self, app_id: str, namespace: str) -> list[str]:
        await self.ping()
        return list(self._entries.get((app_id, namespace), ()))


_SERVERS: dict[str, Server] = {}


def server_at(address: str) -> Server:
    """The server of an address. It outlives its connections, as a real one does."""
    return _SERVERS.setdefault(address, Server())
