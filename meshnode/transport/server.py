"""The server: listeners in, requests to handlers.

    async with trio.open_nursery() as nursery:
        server = Server([MyService()])
        await nursery.start(server.serve, await open_listeners("127.0.0.1:50051"))

Imports trio and the modules below it in this package.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from ssl import SSLContext, SSLError
from typing import Any, Final, final

import trio
from grpclib.const import Handler as Method
from grpclib.const import Status

from meshnode.errors import MeshError
from meshnode.transport import rules
from meshnode.transport.io import link_for
from meshnode.transport.limits import DEFAULT_LIMITS, KeepAlive, Limits
from meshnode.transport.listeners import AnyListener
from meshnode.transport.raw_call import RawCall
from meshnode.transport.server_connection import (
    EncodeDetails,
    Handler,
    Peer,
    ServerConnection,
    Service,
    run_connection,
)
from meshnode.transport.server_stream import Stream

__all__ = ["Server"]


log = logging.getLogger(__name__)

_NOBODY: Final = Peer("")


@final
class Server:
    """Serves grpclib-style handlers, and everything else through `fallback`.

    `handlers` are objects with `__mapping__()`. `fallback` gets calls of methods none of them has, undecoded;
    without one they end with UNIMPLEMENTED. `encode_details` turns a MeshError's details into an encoded
    google.rpc.Status. `compression` ("gzip", "deflate") is used for responses to clients that accept it.
    """

    def __init__(
        self,
        handlers: Iterable[Any] = (),
        *,
        fallback: Handler | None = None,
        limits: Limits = DEFAULT_LIMITS,
        keepalive: KeepAlive | None = None,
        compression: str | None = None,
        encode_details: EncodeDetails | None = None,
    ) -> None:
        methods: dict[str, Method] = {}
        for handler in handlers:
            methods.update(handler.__mapping__())
        self._compression = compression
        self._limits = limits
        self._routes: dict[bytes, Handler] = {
            path.encode("ascii"): partial(self._typed, method) for path, method in methods.items()
        }
        self._services = {path.rpartition("/")[0] for path in methods}
        self._unrouted = fallback or self._unimplemented
        self._service = Service(
            route=self._route,
            limits=limits,
            keepalive=keepalive,
            encode_details=encode_details or _no_details,
        )
        self._connections: set[ServerConnection] = set()
        self._accepting: set[trio.CancelScope] = set()
        self._draining = False

    @property
    def in_flight(self) -> int:
        """Requests whose handlers have not ended."""
        return sum(connection.in_flight for connection in self._connections)

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    async def serve(
        self,
        listeners: Sequence[AnyListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and serve until drained or cancelled; the listeners are closed then."""
        try:
            async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(self._accept, listener, connections)
                task_status.started()
        finally:
            for listener in listeners:
                listener.close()

    async def serve_connection(self, stream: trio.abc.Stream | socket.socket, peer: Peer = _NOBODY) -> None:
        """Serve one connection: a connected non-blocking socket, or any stream."""
        link = link_for(stream)
        if self._draining:  # it came just too late
            await link.aclose()
            return
        await run_connection(self._service, link, peer, self._connections)

    async def drain(self) -> None:
        """Accept nothing more and return when every request has ended. `serve` returns then, too.

        Whoever waits no longer cancels this and the scope of `serve`.
        """
        self._draining = True
        for scope in self._accepting:
            scope.cancel()
        async with trio.open_nursery() as nursery:
            for connection in self._connections:
                nursery.start_soon(connection.drain)

    # --- connections

    async def _accept(self, listener: AnyListener, connections: trio.Nursery) -> None:
        with trio.CancelScope() as scope:
            self._accepting.add(scope)
            if self._draining:
                scope.cancel()
            try:
                while True:
                    accepted = await listener.accept()
                    if isinstance(accepted, socket.socket):
                        connections.start_soon(self._connected, accepted, getattr(listener, "ssl", None))
                    else:
                        connections.start_soon(self.serve_connection, accepted)
            finally:
                self._accepting.discard(scope)
                listener.close()

    async def _connected(self, sock: socket.socket, ssl: SSLContext | None) -> None:
        address = _address_of(sock)
        if ssl is None:
            await self.serve_connection(sock, Peer(address))
            return
        transport = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        stream = trio.SSLStream(transport, ssl, server_side=True, https_compatible=True)
        shaken = False
        with trio.move_on_after(self._limits.handshake_seconds):
            try:
                await stream.do_handshake()
                shaken = True
            except (trio.BrokenResourceError, SSLError) as error:
                log.debug("TLS handshake with %s failed: %s", address, error)
        if shaken:
            await self.serve_connection(stream, Peer(address, stream.getpeercert()))
        else:
            await trio.aclose_forcefully(stream)

    # --- requests

    def _route(self, call: RawCall) -> Handler:
        derived = call.derived
        handler = derived.handler
        if handler is None:
            headers = call.headers
            if rules.refusal(headers) is not None:
                handler = _refuse
            else:
                handler = self._routes.get(headers.get(b":path") or b"", self._unrouted)
            derived.handler = handler
        return handler  # type: ignore[no-any-return]

    async def _typed(self, method: Method, call: RawCall) -> None:
        stream: Stream[Any, Any] = Stream(
            call, method.cardinality, method.request_type, self._limits.message_size
        )
        if self._compression is not None:
            stream.compress_with(self._compression)
        call.finish_now = stream.finish_now
        call.finish = stream.finish
        await method.func(stream)

    async def _unimplemented(self, call: RawCall) -> None:
        prefix, _, method = call.path.rpartition("/")
        service = prefix.removeprefix("/")
        known = prefix in self._services
        message = f"unknown method {method} for service {service}" if known else f"unknown service {service}"
        call.fail(Status.UNIMPLEMENTED, message, None)


async def _refuse(call: RawCall) -> None:
    """Answer what is not a gRPC request."""
    answer = rules.refusal(call.headers)
    if answer is not None:
        await call.refuse(*answer)


def _no_details(_: MeshError) -> bytes | None:
    return None


def _address_of(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return "unix:"
    with suppress(OSError):
        host, port = sock.getpeername()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ""
