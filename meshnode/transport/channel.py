"""The channel: one logical peer, dialled when needed, redialled with backoff when lost.

    async with open_channel("127.0.0.1:50051") as channel:
        reply = await GreeterStub(channel).say_hello(HelloRequest(name="you"))

States are gRPC's. IDLE: nobody needs the connection. CONNECTING: the first call, or `wait_ready`, dials.
READY: the server's SETTINGS are here. TRANSIENT_FAILURE: the last attempt failed; calls fail at once until
the backoff is over, then the next one dials again.

Imports trio and the modules below it in this package.
"""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum
from ssl import SSLContext, SSLError
from typing import Any, Final, final

import trio
from grpclib.const import Cardinality, Status
from trio.lowlevel import ParkingLot

from meshnode.transport import rules
from meshnode.transport.backoff import Backoff
from meshnode.transport.client_connection import ClientConnection
from meshnode.transport.client_stream import Stream
from meshnode.transport.deadline import Deadline
from meshnode.transport.exceptions import ConnectionLost, GRPCError
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.hpack import encode
from meshnode.transport.io import Link, StreamLink, link_for
from meshnode.transport.limits import DEFAULT_LIMITS, KeepAlive, Limits
from meshnode.transport.listeners import connect, parse_address
from meshnode.transport.raw_client import (
    MAX_REFUSALS,
    RawClientCall,
    RawResponse,
    RequestHeaders,
    unary,
)
from meshnode.transport.rules import MetadataLike

__all__ = ["Channel", "ChannelState", "Dialer", "open_channel"]

Dialer = Callable[[], Awaitable[trio.abc.Stream]]

_DEFAULT_BACKOFF: Final = Backoff()
_DIAL_ERRORS: Final = (
    OSError,
    SSLError,
    UnicodeError,  # a host name that cannot be one
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    GRPCError,
)


class ChannelState(Enum):
    """gRPC's connectivity states."""

    IDLE = "IDLE"
    CONNECTING = "CONNECTING"
    READY = "READY"
    TRANSIENT_FAILURE = "TRANSIENT_FAILURE"
    SHUTDOWN = "SHUTDOWN"


@final
class Channel:
    """Carries calls while its `run` is running; `open_channel` sees to that.

    `target` is "host:port", "unix:/path", or a function that dials. With `ssl` the connection is TLS.
    """

    def __init__(
        self,
        target: str | Dialer,
        *,
        ssl: SSLContext | None = None,
        authority: str | None = None,
        user_agent: str = "meshnode",
        limits: Limits = DEFAULT_LIMITS,
        keepalive: KeepAlive | None = None,
        backoff: Backoff = _DEFAULT_BACKOFF,
        rng: random.Random | None = None,
    ) -> None:
        self._target = target
        self._ssl = ssl
        if ssl is not None:
            ssl.set_alpn_protocols(["h2"])
        self._limits = limits
        self._keepalive = keepalive
        self._backoff = backoff
        self._rng = rng or random.Random()
        self._scheme = b"http" if ssl is None else b"https"
        self.authority = authority or _authority_of(target)
        self._user_agent = user_agent
        self._methods: dict[str, bytes] = {}
        self._current: ClientConnection | None = None
        self._connections: set[ClientConnection] = set()
        self._state = ChannelState.IDLE
        self._error = ""
        self._failures = 0
        self._wanted = trio.Event()
        self._changed = ParkingLot()
        self._waiting = 0

    # --- calls

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[Any],
        reply_type: type[Any],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: MetadataLike | None = None,
    ) -> Stream[Any, Any]:
        """A call that generated stubs make."""
        if timeout is not None:
            own = Deadline.after(timeout)
            deadline = own if deadline is None else min(own, deadline)
        return Stream(
            self,
            self._methods.get(name) or self._base(name),
            cardinality,
            reply_type,
            deadline=deadline,
            metadata=rules.pairs_of(metadata) if metadata else [],
            max_size=self._limits.message_size,
        )

    def open_raw(self, headers: RequestHeaders) -> RawClientCall:
        """A call in raw messages, with exactly these headers, pseudo-headers included: `async with` it."""
        return RawClientCall(self, headers)

    async def unary_raw(self, headers: RequestHeaders, frame: bytes) -> RawResponse:
        """One message there, one back, as they are on the wire. Cancelling it resets the stream."""
        connection = self._current
        stream = None if connection is None or connection.waiting else connection.h2.open()
        if connection is None or stream is None:
            connection, stream = await self.acquire()
        refusals = 0
        while True:
            try:
                return await unary(connection, stream, headers, frame)
            except ConnectionLost as lost:
                refusals += 1
                if lost.sent or refusals > MAX_REFUSALS:
                    raise
            connection, stream = await self.acquire(refused_by=connection)

    def _base(self, name: str) -> bytes:
        pairs = [
            (b":method", b"POST"),
            (b":scheme", self._scheme),
            (b":path", name.encode("ascii")),
            (b":authority", self.authority.encode("ascii")),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", self._user_agent.encode("ascii")),
            rules.ACCEPT_ENCODING,
        ]
        base = self._methods[name] = encode(pairs)
        return base

    # --- state

    @property
    def state(self) -> ChannelState:
        """Where the connection stands."""
        return self._state

    @property
    def in_flight(self) -> int:
        """Calls open or waiting to be."""
        return sum(len(connection.h2.streams) for connection in self._connections) + self._waiting

    async def wait_ready(self) -> None:
        """Dial, as often as it takes, until the channel is READY."""
        while self._state is not ChannelState.READY:
            if self._state is ChannelState.SHUTDOWN:
                raise ConnectionLost("the channel is closed", sent=False)
            if self._state is ChannelState.IDLE:
                self._wanted.set()
            await self._changed.park()

    async def wait_not_ready(self) -> None:
        """Until the channel is not READY: the connection is lost, or its server takes no new calls on it."""
        while self._state is ChannelState.READY:
            await self._changed.park()

    async def wait_unconnected(self) -> None:
        """Until there is no connection: one that takes no new calls ends after those that it has."""
        while self._connections:
            await self._changed.park()

    def _become(self, state: ChannelState) -> None:
        self._state = state
        self._changed.unpark_all()

    # --- streams

    async def acquire(self, refused_by: ClientConnection | None = None) -> tuple[ClientConnection, H2Stream]:
        """A new stream on a connection that is ready, waiting for both if need be."""
        connection = self._current
        if connection is not None and connection is not refused_by and not connection.waiting:
            stream = connection.h2.open()
            if stream is not None:
                return connection, stream
        if self._waiting >= self._limits.waiting_requests:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "too many calls wait for the channel")
        self._waiting += 1
        try:
            return await self._acquire(refused_by)
        finally:
            self._waiting -= 1

    async def _acquire(self, refused_by: ClientConnection | None) -> tuple[ClientConnection, H2Stream]:
        while True:
            connection = self._current
            if connection is not None:
                stream = await connection.slot(refused=connection is refused_by)
                if stream is not None:
                    return connection, stream
                if connection is self._current:
                    self._retire(connection)
                continue
            if self._state is ChannelState.SHUTDOWN:
                raise ConnectionLost("the channel is closed", sent=False)
            if self._state is ChannelState.TRANSIENT_FAILURE:
                raise ConnectionLost(self._error, sent=False)
            if self._state is ChannelState.IDLE:
                self._wanted.set()
            await self._changed.park()

    def _retire(self, connection: ClientConnection) -> None:
        """The connection takes no new streams."""
        if self._current is connection:
            self._current = None
            if self._state is ChannelState.READY:
                self._become(ChannelState.IDLE)

    # --- the connection

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial and keep connections, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    await self._wanted.wait()
                    self._wanted = trio.Event()
                    if self._current is None:
                        await self._connect(nursery)
        finally:
            self._become(ChannelState.SHUTDOWN)

    async def _connect(self, nursery: trio.Nursery) -> None:
        self._become(ChannelState.CONNECTING)
        error = f"no connection within {self._backoff.connect:g} s"
        with trio.move_on_after(self._backoff.connect):
            try:
                link = await self._dial()
                connection = ClientConnection(link, self._limits, self._keepalive, self._retire)
                await nursery.start(self._keep, connection)
            except _DIAL_ERRORS as failure:
                error = _reason(failure)
            else:
                self._failures = 0
                if connection.h2.usable:
                    self._current = connection
                    self._become(ChannelState.READY)
                else:
                    self._become(ChannelState.IDLE)
                return
        self._failures += 1
        self._error = f"cannot connect to {self.authority}: {error}"
        self._become(ChannelState.TRANSIENT_FAILURE)
        await trio.sleep(self._backoff.delay(self._failures, self._rng))
        self._become(ChannelState.IDLE)

    async def _keep(
        self, connection: ClientConnection, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self._connections.add(connection)
        try:
            await connection.run(task_status=task_status)
        finally:
            self._connections.discard(connection)
            self._retire(connection)
            self._changed.unpark_all()

    async def _dial(self) -> Link:
        if not isinstance(self._target, str):
            return link_for(await self._target())
        sock = await connect(self._target)
        if self._ssl is None:
            return link_for(sock)
        return StreamLink(await self._handshake(sock, self._ssl))

    async def _handshake(self, sock: socket.socket, ssl: SSLContext) -> trio.abc.Stream:
        transport = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        host = self.authority.rpartition(":")[0] or self.authority
        stream = trio.SSLStream(transport, ssl, server_hostname=host.strip("[]"), https_compatible=True)
        try:
            await stream.do_handshake()
            if stream.selected_alpn_protocol() != "h2":
                raise ConnectionLost("the server does not offer HTTP/2 (ALPN h2)", sent=False)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


def _reason(failure: Exception) -> str:
    """What to tell callers: trio keeps the interesting part of a broken TLS handshake in the cause."""
    if isinstance(failure, GRPCError):
        return failure.message or failure.status.name
    return str(failure) or str(failure.__cause__ or "") or type(failure).__name__


def _authority_of(target: str | Dialer) -> str:
    if not isinstance(target, str) or isinstance(parse_address(target), str):
        return "localhost"
    return target


@asynccontextmanager
async def open_channel(target: str | Dialer, **options: Any) -> AsyncIterator[Channel]:
    """A channel that carries calls inside the `async with`; the options are Channel's."""
    channel = Channel(target, **options)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(channel.run)
        try:
            yield channel
        except BaseException as caught:
            failure = caught
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
