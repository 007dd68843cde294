"""One connection of a server: reads it, runs a task with a nursery for every request, answers, closes.

The order of a request's end: the handler returns or fails, everything in its nursery ends, the answer is
sent. Errors of handlers end in a status, never in the connection.

Imports trio, io and the sans-io modules.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import trio
from attrs import frozen
from grpclib.const import Status
from trio.lowlevel import reschedule

from meshnode.errors import MeshError
from meshnode.transport import frames
from meshnode.transport.connection import Connection
from meshnode.transport.deadline import Deadline
from meshnode.transport.exceptions import GRPCError
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.io import Link
from meshnode.transport.keepalive import Pinger
from meshnode.transport.limits import KeepAlive, Limits
from meshnode.transport.raw_call import RawCall

__all__ = ["EncodeDetails", "Handler", "Peer", "ServerConnection", "Service", "run_connection"]

log = logging.getLogger(__name__)

Handler = Callable[[RawCall], Awaitable[None]]
EncodeDetails = Callable[[MeshError], bytes | None]

_LINGER: Final = 1.0  # seconds the peer has to read our last words before the socket is closed
_TASK_NAME: Final = "meshnode.transport.request"


@frozen
class Peer:
    """Who is at the other end of a connection."""

    address: str
    """"host:port", "unix:", or empty for a stream in memory."""

    certificate: dict[str, Any] | None = None
    """What `ssl.SSLSocket.getpeercert` tells, for TLS with client certificates."""


@frozen
class Service:
    """What all connections of a server share."""

    route: Callable[[RawCall], Handler]
    limits: Limits
    keepalive: KeepAlive | None
    encode_details: EncodeDetails


@final
class ServerConnection:
    """The connection's Observer, and what its calls need of it. Lives inside `run_connection`, whose nursery
    holds the requests' tasks.
    """

    __slots__ = (
        "_limits",
        "_link",
        "_opened",
        "_pinger",
        "_reading",
        "_service",
        "_unsent_limit",
        "draining",
        "h2",
        "idle",
        "in_flight",
        "inflow",
        "outbound",
        "peer",
    )

    def __init__(self, service: Service, link: Link, peer: Peer) -> None:
        self._service = service
        self._limits = service.limits
        self._link = link
        self._opened: list[tuple[RawCall, H2Stream]] = []  # by the bytes just read; `read` starts their tasks
        self._unsent_limit = service.limits.unsent_bytes
        self._reading = trio.CancelScope()
        self.peer = peer
        self.in_flight = 0
        self.draining = False
        self.idle = trio.Event()  # set when the last request has ended while draining
        self.h2 = Connection(
            client=False, limits=service.limits, send=link.send, wake=reschedule, observer=self
        )
        self.outbound = self.h2.outbound
        self.inflow = self.h2.inflow
        link.on_flushed = self.h2.flushed
        self._pinger = Pinger(self.h2)

    # --- Observer

    def request(self, stream: H2Stream) -> None:
        """A client opened a stream."""
        call = stream.owner = RawCall(self, stream)
        self.in_flight += 1
        self._opened.append((call, stream))

    def aborted(self, stream: H2Stream) -> None:
        """The client reset the stream or is gone: whoever works on the call can stop."""
        call: RawCall | None = stream.owner
        if call is not None:
            call.cancel()

    def going_away(self) -> None:
        """Clients only."""

    def slots_changed(self) -> None:
        """Clients only."""

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

    # --- the connection

    async def read(self, nursery: trio.Nursery) -> None:
        """Feed the connection until it ends, for whatever reason; requests get their tasks in `nursery`."""
        h2, link, scope, limits, opened = self.h2, self._link, self._reading, self._limits, self._opened
        receive, now = link.receive, trio.current_time
        scope.deadline = now() + limits.handshake_seconds
        watched = True  # whether a deadline is set
        with scope:
            while not h2.closed:
                data = await receive()
                if not data:
                    return
                h2.receive(data, now())
                if opened:
                    for call, stream in opened:
                        nursery.start_soon(self._serve, call, stream, name=_TASK_NAME)
                    opened.clear()
                if not h2.greeted:
                    continue
                if h2.mid_frame:
                    if h2.progressed or not watched:
                        scope.deadline = now() + limits.header_seconds
                        watched = True
                elif watched:
                    scope.deadline = float("inf")
                    watched = False

    async def watch(self, keepalive: KeepAlive) -> None:
        """Give the connection up when the client is silent for too long."""
        await self._pinger.watch(keepalive)
        self._reading.cancel()

    async def drain(self) -> None:
        """Take no new requests; return when those there are have ended, and let the connection end then."""
        self.draining = True
        self.h2.go_away(last_id=frames.MAX_STREAM_ID)  # requests on their way are still welcome,
        if self.h2.greeted:
            with trio.move_on_after(self._limits.farewell_seconds):
                await self._pinger.round_trip()
        self.h2.go_away()  # later ones are not
        if self.in_flight:
            await self.idle.wait()
        self._reading.cancel()

    def lose(self, reason: str) -> None:
        """Nothing more will come: cancel what is left."""
        self.h2.lose(reason)
        self._pinger.release()

    # --- a request

    async def _serve(self, call: RawCall, stream: H2Stream) -> None:
        failure: BaseException | None = None
        returned = False
        try:
            async with trio.open_nursery() as nursery:
                call.nursery = nursery
                call.scope = scope = nursery.cancel_scope
                if stream.error is not None:
                    scope.cancel()  # reset before this task began
                if self._link.unsent > self._unsent_limit:
                    await self._link.room()  # a client that does not read its answers gets no more of them
                timeout = call.derived.timeout
                if timeout is not None:
                    call.deadline = Deadline(trio.current_time() + timeout)
                    scope.deadline = call.deadline.at
                await self._service.route(call)(call)
                returned = True
            if self._link.unsent > self._unsent_limit:
                await self._link.room()
            if scope.cancelled_caught and not (returned and self._in_time(call)):
                self._cancelled(call)
            elif not stream.local_ended and (call.finish_now is None or not call.finish_now()):
                await self._finish(call)
        except* Exception as failures:
            failure = failures
        finally:
            self.in_flight -= 1
            if self.draining and not self.in_flight:
                self.idle.set()
            # Break the cycles by hand: leaving them to the collector costs 4 µs per request.
            stream.owner = None
            call.forget()
        if failure is not None:
            self._failed(call, failure)

    async def _finish(self, call: RawCall) -> None:
        """Answer, waiting for the client's windows as long as the deadline allows."""
        if call.finish is None:
            raise GRPCError(Status.INTERNAL, "the handler returned without a status")
        with trio.CancelScope() as scope:
            if call.deadline is not None:
                scope.deadline = call.deadline.at
            call.scope = scope
            await call.finish()
        if scope.cancelled_caught:
            self._cancelled(call)

    def _in_time(self, call: RawCall) -> bool:
        """A handler may cancel its nursery to end what it started there; that alone is no failure."""
        return call.deadline is None or trio.current_time() < call.deadline.at

    def _cancelled(self, call: RawCall) -> None:
        if self._in_time(call):  # the client is gone, or the handler cancelled itself
            call.fail(Status.CANCELLED, "the request was cancelled", None)
        else:
            call.fail(Status.DEADLINE_EXCEEDED, "Deadline Exceeded", None)

    def _failed(self, call: RawCall, failure: BaseException) -> None:
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
            failure = failure.exceptions[0]
        if isinstance(failure, GRPCError):
            details = failure.details if isinstance(failure.details, bytes) else None
            call.fail(failure.status, failure.message, details)
        elif isinstance(failure, MeshError):
            call.fail(failure.code, failure.message, self._service.encode_details(failure))
        elif not call.answered:
            log.error("%s failed", call.path, exc_info=failure)
            call.fail(Status.INTERNAL, f"{type(failure).__name__} in the handler", None)
        else:
            log.warning("%s failed after it was answered or cancelled", call.path, exc_info=failure)


async def run_connection(service: Service, link: Link, peer: Peer, registry: set[ServerConnection]) -> None:
    """Serve one connection from its preface to its end; in `registry` meanwhile."""
    cancelled = True
    connection = ServerConnection(service, link, peer)
    try:
        async with trio.open_nursery() as nursery:
            registry.add(connection)
            nursery.start_soon(link.write_loop)
            if service.keepalive is not None:
                nursery.start_soon(connection.watch, service.keepalive)
            await connection.read(nursery)
            connection.lose("the connection to the client is lost")
            with trio.move_on_after(_LINGER):
                await link.room()  # the last answers: cancelling their writer would lose them
            nursery.cancel_scope.cancel()
        cancelled = False
    finally:
        registry.discard(connection)
        connection.h2.go_away()
        connection.lose("the server is shutting down")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _LINGER):
            await link.finish()
            while not cancelled and await link.receive():
                pass  # a socket closed with unread bytes would take our last words with it
        with trio.CancelScope(shield=True):
            await link.aclose()
