"""A TCP path that can be cut: a proxy on loopback, one listener, one place it leads to."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import final

import trio

from histories.faults import Kind

__all__ = ["Link"]

_CHUNK = 65536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@final
class Link:
    """Carries connections from `port` to `target`, both on loopback, while `run` runs."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._fault: Kind | None = None
        self._flowing = trio.Event()
        self._flowing.set()
        self._broken = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        """Listen until cancelled."""
        await trio.serve_tcp(self._carry, self.port, host="127.0.0.1", task_status=task_status)

    def cut(self, kind: Kind) -> None:
        """Begin a fault, on the connections there are and on those that come."""
        self._fault = kind
        if kind is Kind.HOLD:
            self._flowing = trio.Event()
        elif kind is Kind.RESET:
            self._break()

    def heal(self) -> None:
        fault, self._fault = self._fault, None
        if fault is Kind.SWALLOW:
            self._break()
        self._flowing.set()

    def _break(self) -> None:
        self._broken.set()
        self._broken = trio.Event()

    async def _carry(self, near: trio.SocketStream) -> None:
        try:
            if self._fault is not Kind.RESET:
                far = await trio.open_tcp_stream("127.0.0.1", self._target)
                await self._join(near, far)
        except OSError:
            pass  # nobody listens there; the near side learns it below
        finally:
            await _reset(near)

    async def _join(self, near: trio.SocketStream, far: trio.SocketStream) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for source, sink in ((near, far), (far, near)):
                    nursery.start_soon(self._pump, source, sink, nursery.cancel_scope)
                await self._broken.wait()
                nursery.cancel_scope.cancel()
        finally:
            await _reset(far)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        """What ends one direction ends both: gRPC and Redis have no use for half a connection."""
        with suppress(trio.BrokenResourceError):
            while data := await source.receive_some(_CHUNK):
                await self._flowing.wait()
                if self._fault is not Kind.SWALLOW:
                    await sink.send_all(data)
        scope.cancel()


async def _reset(stream: trio.SocketStream) -> None:
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    await trio.aclose_forcefully(stream)
