"""Moves the bytes of a connection: between the sans-io `Connection` and a socket or any trio stream.

Two links with one surface. `SocketLink` drives a raw non-blocking socket, which is where the time goes: what
the tasks of one scheduler pass write leaves in one `send`, because the writer task that sends it is woken in
their pass and therefore runs in the next; when nothing else is going on the bytes leave at once, which saves
a lone call the detour. `StreamLink` does the same over `trio.abc.Stream`: TLS, memory streams, whatever a
test makes up.

Imports trio; knows nothing of HTTP/2.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, Protocol, final

import trio
from trio.lowlevel import (
    Abort,
    ParkingLot,
    RaiseCancelT,
    Task,
    current_task,
    reschedule,
    wait_readable,
    wait_task_rescheduled,
    wait_writable,
)

__all__ = ["Link", "SocketLink", "StreamLink", "link_for"]

_CHUNK: Final = 65_536


class Link(Protocol):
    """Sends what it is given, and says when the peer does not take it."""

    on_flushed: Callable[[], None]
    """Called whenever everything that was given has been sent."""

    unsent: int
    """Bytes that wait for the peer; the caller decides how much is too much, and awaits `room`."""

    def send(self, data: bytes, at_once: bool) -> None:
        """Queue bytes; `at_once` says that nobody else is about to add to them."""

    async def receive(self) -> bytes:
        """The next bytes from the peer; empty at the end of the stream, however it came about."""

    async def write_loop(self) -> None:
        """Send what is queued, until cancelled."""

    async def room(self) -> None:
        """Wait until nothing is unsent, or the link is lost."""

    async def finish(self) -> None:
        """Send what is queued and say that no more will come, as far as the peer lets us."""

    async def aclose(self) -> None:
        """Close; never fails."""


@final
class SocketLink:
    """The fast path; it owns the socket, which must be non-blocking."""

    __slots__ = ("_blocked", "_out", "_room", "_sock", "_writer", "lost", "on_flushed", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._out: list[bytes] = []
        self._blocked = False
        self._writer: Task | None = None  # the writer task while it sleeps
        self._room = ParkingLot()
        self.lost = False
        self.unsent = 0
        self.on_flushed: Callable[[], None] = _nothing

    def send(self, data: bytes, at_once: bool) -> None:
        self._out.append(data)
        if self._blocked:
            self.unsent += len(data)
        elif at_once:
            self._flush()
        elif self._writer is not None:
            task, self._writer = self._writer, None
            reschedule(task)

    def _flush(self) -> None:
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._lose()
            return
        if sent == len(data):
            self.on_flushed()
            return
        out.append(data[sent:])
        self.unsent = len(data) - sent
        self._blocked = True
        if self._writer is not None:
            task, self._writer = self._writer, None
            reschedule(task)

    def _lose(self) -> None:
        """Sending failed: the reader will find out why; nobody shall wait for room meanwhile."""
        self.lost = True
        self._blocked = True
        self.unsent = 0
        self._out.clear()
        self._room.unpark_all()

    async def write_loop(self) -> None:
        while not self.lost:
            if self._blocked:
                await wait_writable(self._sock)
                self._blocked = False
            self._flush()
            if self._blocked:
                continue
            if self.unsent:
                self.unsent = 0
                self._room.unpark_all()
            self._writer = current_task()
            await wait_task_rescheduled(self._stop_writing)

    def _stop_writing(self, _: RaiseCancelT) -> Abort:
        self._writer = None
        return Abort.SUCCEEDED

    async def receive(self) -> bytes:
        sock = self._sock
        while True:
            await wait_readable(sock)
            try:
                return sock.recv(_CHUNK)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                return b""

    async def room(self) -> None:
        if self.unsent:
            await self._room.park()

    async def finish(self) -> None:
        while self._out and not self.lost:
            self._blocked = False
            self._flush()
            if self._out:
                await wait_writable(self._sock)
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer was faster

    async def aclose(self) -> None:
        self._lose()
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


@final
class StreamLink:
    """Any trio stream; it owns it."""

    __slots__ = ("_out", "_room", "_stream", "_writer", "lost", "on_flushed", "unsent")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._out: list[bytes] = []
        self._writer: Task | None = None
        self._room = ParkingLot()
        self.lost = False
        self.unsent = 0
        self.on_flushed: Callable[[], None] = _nothing

    def send(self, data: bytes, at_once: bool) -> None:
        if self.lost:
            return
        self._out.append(data)
        self.unsent += len(data)
        if self._writer is not None:
            task, self._writer = self._writer, None
            reschedule(task)

    async def write_loop(self) -> None:
        while not self.lost:
            await self._send_all()
            if not self._out and not self.lost:
                self._writer = current_task()
                await wait_task_rescheduled(self._stop_writing)

    async def _send_all(self) -> None:
        while self._out and not self.lost:
            data = b"".join(self._out)
            self._out.clear()
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._lose()
                return
            except BaseException:
                self._lose()  # cancelled: some of it may have been sent, so nothing may follow
                raise
            self.unsent -= len(data)
            if not self._out:
                self.on_flushed()
                self._room.unpark_all()

    def _lose(self) -> None:
        self.lost = True
        self.unsent = 0
        self._out.clear()
        self._room.unpark_all()

    def _stop_writing(self, _: RaiseCancelT) -> Abort:
        self._writer = None
        return Abort.SUCCEEDED

    async def receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_CHUNK))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def room(self) -> None:
        if self.unsent:
            await self._room.park()

    async def finish(self) -> None:
        await self._send_all()
        if isinstance(self._stream, trio.abc.HalfCloseableStream) and not self.lost:
            try:
                await self._stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the peer was faster

    async def aclose(self) -> None:
        self._lose()
        await trio.aclose_forcefully(self._stream)


def _nothing() -> None:
    pass


def link_for(stream: socket.socket | trio.abc.Stream) -> SocketLink | StreamLink:
    """The fastest link there is for it."""
    if isinstance(stream, socket.socket):
        return SocketLink(stream)
    return StreamLink(stream)
