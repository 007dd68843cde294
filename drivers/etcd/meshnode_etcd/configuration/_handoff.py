"""One response at a time, from the stream (asyncio side) to the watch (trio's side).

The stream is not read while one waits here: a slow application is waited for, by flow control down to etcd.
"""

from __future__ import annotations

import asyncio
from typing import final

import trio

from meshnode_etcd.wire.etcdserverpb import WatchResponse

__all__ = ["Handoff"]


@final
class Handoff:
    """Both sides run in one thread."""

    def __init__(self) -> None:
        self._response: WatchResponse | None = None
        self._ended = False
        self._bell = trio.Event()
        self._room = asyncio.Event()

    async def put(self, response: WatchResponse) -> None:
        """On the asyncio side."""
        while self._response is not None:
            self._room.clear()
            await self._room.wait()
        self._response = response
        self._bell.set()

    def end(self) -> None:
        """Nothing more will come, or is wanted."""
        self._ended = True
        self._bell.set()

    async def take(self) -> WatchResponse | None:
        """On trio's side; None at the end."""
        while self._response is None:
            if self._ended:
                return None
            self._bell = trio.Event()
            await self._bell.wait()
        response, self._response = self._response, None
        self._room.set()
        return response
