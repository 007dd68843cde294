"""One connection of a channel: reads it, keeps it alive, lets calls open streams on it.

Imports trio, io and the sans-io modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio
from trio.lowlevel import ParkingLot, reschedule

from meshnode.transport.connection import Connection
from meshnode.transport.exceptions import ConnectionLost
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.io import Link
from meshnode.transport.keepalive import Pinger
from meshnode.transport.limits import KeepAlive, Limits

__all__ = ["ClientConnection"]

_LINGER: Final = 1.0  # seconds for our last words when the channel closes


@final
class ClientConnection:
    """The connection's Observer, and what its calls need of it."""

    __slots__ = (
        "_keepalive",
        "_link",
        "_on_retired",
        "_pinger",
        "_reading",
        "_unsent_limit",
        "h2",
        "inflow",
        "outbound",
        "slots",
        "waiting",
    )

    def __init__(
        self,
        link: Link,
        limits: Limits,
        keepalive: KeepAlive | None,
        on_retired: Callable[[ClientConnection], None],
    ) -> None:
        self._link = link
        self._keepalive = keepalive
        self._on_retired = on_retired
        self._unsent_limit = limits.unsent_bytes
        self._reading = trio.CancelScope()
        self.slots = ParkingLot()  # calls that wait until the server takes another stream
        self.waiting = 0  # those, and those just woken
        self.h2 = Connection(client=True, limits=limits, send=link.send, wake=reschedule, observer=self)
        self.outbound = self.h2.outbound
        self.inflow = self.h2.inflow
        link.on_flushed = self.h2.flushed
        self._pinger = Pinger(self.h2)

    # --- Observer

    def request(self, stream: H2Stream) -> None:
        """Servers only."""

    def aborted(self, stream: H2Stream) -> None:
        """Whoever waits for the stream was woken already."""

    def going_away(self) -> None:
        """The server takes no new streams: those there are may end, then the connection does."""
        self._on_retired(self)
        self.slots.unpark_all()
        self.slots_changed()

    def slots_changed(self) -> None:
        """A stream ended, or the settings or the connection's fate changed."""
        h2 = self.h2
        if h2.closed:
            self.slots.unpark_all()
        elif self.slots:
            self.slots.unpark()
        elif h2.refused_above is not None and not h2.streams:
            self._reading.cancel()

    def ping_acked(self, payload: bytes) -> None:
        """The answer to one of the pinger's."""
        self._pinger.acked(payload)

    # --- for calls

    @property
    def congested(self) -> bool:
        """Whether the peer does not take what we send."""
        return self._link.unsent > self._unsent_limit

    async def room(self) -> None:
        """Wait while that is so."""
        if self._link.unsent > self._unsent_limit:
            await self._link.room()

    async def slot(self, *, refused: bool) -> H2Stream | None:
        """A new stream, after those who waited before; None if this connection will have none any more.

        `refused`: the server refused the last one although it should have had room. Some count a stream for
        a while after its end, so the next end of one is the time to try again.
        """
        queued = False
        if refused and self.h2.streams:
            await self._queue()
            queued = True
        while self.h2.usable:
            if queued or not self.waiting:
                stream = self.h2.open()
                if stream is not None:
                    return stream
            await self._queue()
            queued = True
        return None

    async def _queue(self) -> None:
        self.waiting += 1
        try:
            await self.slots.park()
        finally:
            self.waiting -= 1

    # --- the connection

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until the connection ends or this is cancelled; started when the server's SETTINGS are here."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._link.write_loop)
                refusal = await self._greet()
                if refusal is None:
                    task_status.started()
                    if self._keepalive is not None:
                        nursery.start_soon(self._watch, self._keepalive)
                    with self._reading:
                        await self._read()
                    self._on_retired(self)
                    with trio.move_on_after(_LINGER):
                        await self._link.room()  # the last resets: cancelling their writer would lose them
                nursery.cancel_scope.cancel()
            if refusal is not None:
                raise ConnectionLost(refusal, sent=False)
        finally:
            self._on_retired(self)
            self.h2.go_away()
            self.h2.lose("the connection is closed")
            self._pinger.release()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LINGER):
                await self._link.finish()
            with trio.CancelScope(shield=True):
                await self._link.aclose()

    async def _greet(self) -> str | None:
        """Wait for the server's SETTINGS; the answer is what is wrong with it."""
        h2 = self.h2
        while not h2.greeted and not h2.closed:
            data = await self._link.receive()
            if not data:
                return "the server closed the connection before its SETTINGS"
            h2.receive(data, trio.current_time())
        return None if h2.fault is None else f"the server does not speak HTTP/2: {h2.fault.message}"

    async def _read(self) -> None:
        h2, receive, now = self.h2, self._link.receive, trio.current_time
        while not h2.closed:
            data = await receive()
            if not data:
                h2.lose("the server closed the connection")
                return
            h2.receive(data, now())

    async def _watch(self, keepalive: KeepAlive) -> None:
        await self._pinger.watch(keepalive)
        self.h2.lose("the server does not answer keepalive PINGs")
        self._reading.cancel()
