"""PINGs of ours: to notice a peer that is gone, and to know that it has read what we said before.

Imports trio and the sans-io connection.
"""

from __future__ import annotations

from typing import Final, final

import trio

from meshnode.transport.connection import Connection
from meshnode.transport.limits import KeepAlive

__all__ = ["Pinger"]

_ALIVE: Final = b"mn-alive"


@final
class Pinger:
    """The PINGs of one connection."""

    __slots__ = ("_counter", "_h2", "_waiting")

    def __init__(self, h2: Connection) -> None:
        self._h2 = h2
        self._counter = 0
        self._waiting: dict[bytes, trio.Event] = {}

    def acked(self, payload: bytes) -> None:
        """The peer answered a PING."""
        event = self._waiting.pop(payload, None)
        if event is not None:
            event.set()

    def release(self) -> None:
        """The connection is lost: nothing will be answered any more."""
        for event in self._waiting.values():
            event.set()
        self._waiting.clear()

    async def round_trip(self) -> None:
        """Wait until the peer has read everything sent so far, or the connection is lost."""
        if self._h2.closed:
            return
        self._counter += 1
        payload = self._counter.to_bytes(8, "big")
        event = self._waiting[payload] = trio.Event()
        self._h2.ping(payload)
        try:
            await event.wait()
        finally:
            self._waiting.pop(payload, None)

    async def watch(self, keepalive: KeepAlive) -> None:
        """Return when the peer has been silent for too long; otherwise run until cancelled."""
        h2 = self._h2
        while True:
            await trio.sleep_until(max(h2.now + keepalive.interval, trio.current_time()))
            heard = h2.now
            if trio.current_time() < heard + keepalive.interval:
                continue
            if not h2.streams and not keepalive.when_idle:
                await trio.sleep(keepalive.interval)
                continue
            h2.ping(_ALIVE)
            await trio.sleep(keepalive.patience)
            if h2.now == heard:
                return
