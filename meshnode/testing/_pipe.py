"""One direction of an in-memory connection: bytes that take their time, in order, through a bounded buffer.

A pipe knows nothing of links: whoever makes it says when bytes sent now arrive (`schedule`) and whether the
way is blocked (`held`). It runs no task; the reader itself sleeps until the next bytes are due. May import
trio only.

Invariants: bytes wait for those before them, so they are never reordered; what was accepted and has not been
read never exceeds `capacity`; the end of the stream travels like data.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, final

import trio

__all__ = ["Pipe"]

PIECE: Final = 16 * 1024
"""Bytes that share one arrival time; a larger write is cut up, so that a throttled link delivers it little by
little.
"""


@final
class Pipe:
    """Bytes from one writer to one reader."""

    __slots__ = (
        "_broken",
        "_buffered",
        "_capacity",
        "_ended",
        "_held",
        "_pieces",
        "_reader_closed",
        "_readers",
        "_reading",
        "_schedule",
        "_writer_closed",
        "_writers",
        "_writing",
    )

    def __init__(self, capacity: int, schedule: Callable[[int], float], held: Callable[[], bool]) -> None:
        self._capacity = capacity
        self._schedule = schedule
        self._held = held
        self._pieces: deque[tuple[float, memoryview]] = deque()  # an empty piece is the end of the stream
        self._buffered = 0
        self._ended = False
        self._writer_closed = False
        self._reader_closed = False
        self._broken = False
        self._reading = False
        self._writing = False
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        with self._one_writer():
            await trio.lowlevel.checkpoint()
            self._check_writable()
            rest = memoryview(bytes(data))
            while rest:
                await self._wait_for_room()
                size = min(len(rest), self._capacity - self._buffered, PIECE)
                self._push(rest[:size])
                rest = rest[size:]

    async def wait_writable(self) -> None:
        with self._one_writer():
            await trio.lowlevel.checkpoint()
            self._check_writable(broken_is_error=False)
            while self._buffered >= self._capacity and not self._broken and not self._reader_closed:
                await self._writers.park()
                self._check_writable(broken_is_error=False)

    async def end(self) -> None:
        with self._one_writer():
            await trio.lowlevel.checkpoint()
            if self._writer_closed:
                raise trio.ClosedResourceError("this stream was closed")
            if not self._ended:
                self._ended = True
                self._push(memoryview(b""))

    async def receive(self, max_bytes: int | None) -> bytes:
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._one_reader():
            await trio.lowlevel.checkpoint()
            while True:
                if self._reader_closed:
                    raise trio.ClosedResourceError("this stream was closed")
                if self._broken:
                    raise trio.BrokenResourceError("connection reset by peer")
                if self._readable():
                    return self._take(max_bytes)
                with trio.move_on_at(self._next_arrival()):
                    await self._readers.park()

    def close_writer(self) -> None:
        """The writing end is gone: the reader finds the end of the stream after what is under way."""
        if not self._ended and not self._broken:
            self._push(memoryview(b""))
        self._ended = self._writer_closed = True
        self.wake()

    def close_reader(self) -> None:
        """The reading end is gone: what is under way is lost, further writes break."""
        self._reader_closed = True
        self._forget()

    def reset(self) -> None:
        """The connection is gone for both ends, with everything that was under way."""
        self._broken = True
        self._forget()

    def wake(self) -> None:
        """Lets both ends look again, after the way was blocked or opened."""
        self._readers.unpark_all()
        self._writers.unpark_all()

    def _forget(self) -> None:
        self._pieces.clear()
        self._buffered = 0
        self.wake()

    def _push(self, piece: memoryview) -> None:
        self._pieces.append((self._schedule(len(piece)), piece))
        self._buffered += len(piece)
        self._readers.unpark_all()

    def _next_arrival(self) -> float:
        return self._pieces[0][0] if self._pieces and not self._held() else float("inf")

    def _readable(self) -> bool:
        return self._next_arrival() <= trio.current_time()

    def _take(self, max_bytes: int | None) -> bytes:
        taken = bytearray()
        while self._readable() and (max_bytes is None or len(taken) < max_bytes):
            due, piece = self._pieces[0]
            if not piece:
                break  # the end stays in place: every later read finds it again
            part = piece if max_bytes is None else piece[: max_bytes - len(taken)]
            taken += part
            if len(part) == len(piece):
                self._pieces.popleft()
            else:
                self._pieces[0] = (due, piece[len(part) :])
        self._buffered -= len(taken)
        self._writers.unpark_all()
        return bytes(taken)

    async def _wait_for_room(self) -> None:
        while self._buffered >= self._capacity:
            await self._writers.park()
            self._check_writable()

    def _check_writable(self, *, broken_is_error: bool = True) -> None:
        if self._writer_closed or (self._ended and broken_is_error):
            raise trio.ClosedResourceError("this stream was closed for sending")
        if broken_is_error and (self._broken or self._reader_closed):
            raise trio.BrokenResourceError("the other end is gone")

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        if self._writing:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    @contextmanager
    def _one_reader(self) -> Iterator[None]:
        if self._reading:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._reading = True
        try:
            yield
        finally:
            self._reading = False
