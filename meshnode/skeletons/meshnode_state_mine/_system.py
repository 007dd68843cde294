"""Stands in for the client library of the real system. Delete it, and call that library instead.

A server is an object that all share who open the same address. Every call is awaited, as one over a network
is, and raises `ConnectionError` while the server does not answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import final

import trio
from attrs import frozen

__all__ = ["Conflict", "Row", "Server", "Write", "server_at"]


class Conflict(Exception):
    """Another version is there than was expected. Nothing has been written."""


@final
@frozen
class Row:
    """What is kept under a key; `expires` is in seconds since 1970."""

    value: bytes
    version: int
    expires: float = math.inf


@final
@frozen
class Write:
    """One change; `value` None takes the key out. `expected` is the version that must be there: 0 for none,
    None for whichever.
    """

    key: str
    value: bytes | None
    expected: int | None = None
    expires: float = math.inf


@final
class Server:
    """A table of rows. `now` is the time, for a stand-in has no clock of its own."""

    def __init__(self) -> None:
        self.answers = True
        self._rows: dict[str, Row] = {}
        self._versions = count(1)

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.answers:
            raise ConnectionError("the server does not answer")

    async def read(self, key: str, now: float) -> Row | None:
        await self.ping()
        return self._row(key, now)

    async def write(self, writes: Sequence[Write], now: float) -> None:
        """All of them, each after the one before, or none. Raises `Conflict`."""
        await self.ping()
        changed: dict[str, Row | None] = {}
        for one in writes:
            row = changed[one.key] if one.key in changed else self._row(one.key, now)
            if one.expected is not None and one.expected != (row.version if row is not None else 0):
                raise Conflict(one.key)
            changed[one.key] = _row_of(one, next(self._versions))
        for key, row in changed.items():
            self._rows.pop(key, None)
            if row is not None:
                self._rows[key] = row

    def _row(self, key: str, now: float) -> Row | None:
        row = self._rows.get(key)
        if row is not None and row.expires <= now:
            del self._rows[key]
            return None
        return row


def _row_of(write: Write, version: int) -> Row | None:
    return None if write.value is None else Row(write.value, version, write.expires)


_SERVERS: dict[str, Server] = {}


def server_at(address: str) -> Server:
    """The server of an address. It outlives its connections, as a real one does."""
    return _SERVERS.setdefault(address, Server())
