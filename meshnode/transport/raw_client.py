"""The client's side of one call, in raw messages.

Imports trio for its exceptions, and the modules below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, final

from grpclib.const import Status

from meshnode.transport import rules
from meshnode.transport.client_connection import ClientConnection
from meshnode.transport.derived import encoded, wire
from meshnode.transport.exceptions import ConnectionLost, GRPCError, ProtocolError
from meshnode.transport.frames import ErrorCode, wire_headers
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.hpack import HeaderBlock, Pair
from meshnode.transport.waiting import until_readable, until_writable

if TYPE_CHECKING:
    from meshnode.transport.channel import Channel

__all__ = ["RawClientCall", "RawResponse", "RequestHeaders", "unary"]


MAX_REFUSALS: Final = 5
"""How often a unary call is repeated that the server refused before any handler saw it."""


RequestHeaders = Sequence[Pair] | Callable[[], Sequence[Pair]]
"""Header pairs of a request, or what makes them once there is a connection: waiting for one counts against
the deadline that they carry.
"""


class RawResponse(NamedTuple):
    """What a unary call came back with, as it was on the wire."""

    headers: HeaderBlock
    frame: bytes | None
    """The message with its prefix; None if there was none, as with most errors."""
    trailers: HeaderBlock
    """The same object as `headers` if the response consisted of these only ("trailers-only")."""


async def unary(
    connection: ClientConnection, stream: H2Stream, request: RequestHeaders, frame: bytes
) -> RawResponse:
    """Send the whole request on a fresh stream and wait for the whole response."""
    reply: bytes | None = None
    try:
        headers = request() if callable(request) else request
        if connection.congested or not connection.outbound.unary(
            stream, wire(headers, end=False), frame, None
        ):
            await _send_whole(connection, stream, encoded(headers), frame)
        while True:
            if stream.first is not None:
                if reply is not None:
                    raise GRPCError(Status.INTERNAL, "the response of a unary call has several messages")
                reply = stream.pop()
                connection.inflow.taken(stream, reply or b"")
            elif stream.remote_ended:
                break
            elif stream.error is not None:
                raise stream.error
            else:
                connection.inflow.starving(stream)
                await until_readable(stream)
    except BaseException:
        connection.h2.cancel(stream, ErrorCode.CANCEL)
        connection.inflow.abandon(stream)
        raise
    if stream.error is not None:
        raise stream.error
    trailers = _trailers_of(stream)
    return RawResponse(stream.headers or trailers, reply, trailers)


def _trailers_of(stream: H2Stream) -> HeaderBlock:
    """What says how a call ended that has ended; GRPCError if nothing does."""
    if stream.trailers is not None:
        return stream.trailers
    headers = stream.headers or HeaderBlock()
    if b"grpc-status" in headers.map:
        return headers  # trailers-only, by a server that ends the stream with an empty DATA frame
    if stream.discarding and stream.headers is not None:
        raise rules.result_of(headers) or GRPCError(Status.UNKNOWN, "the response is not gRPC")
    raise GRPCError(Status.INTERNAL, "the server ended the call without trailers")


async def _send_whole(connection: ClientConnection, stream: H2Stream, block: bytes, frame: bytes) -> None:
    """The request of a unary call that windows or sizes keep from leaving in one write."""
    await connection.room()
    connection.outbound.headers(stream, block, end=False)
    offset = 0
    while not stream.remote_ended:
        offset = connection.outbound.data(stream, frame, offset, end=True)
        if offset == len(frame):
            await connection.room()
            return
        await until_writable(stream)


@final
class RawClientCall:
    """One call: an async context manager that opens it, and resets it if it is left before its end.

    A *frame* is one message with its five-byte prefix.
    """

    __slots__ = ("_channel", "_connection", "_ended", "_refusals", "_request", "_stream", "_unary")

    _connection: ClientConnection
    _stream: H2Stream

    def __init__(self, channel: Channel, request: RequestHeaders | bytes | Callable[[], bytes]) -> None:
        self._channel = channel
        self._request = request  # pairs, or what makes them or their encoded block
        self._ended = False
        self._unary: bytes | None = None  # the only message, as long as it may have to be sent again
        self._refusals = 0

    async def __aenter__(self) -> RawClientCall:
        self._connection, self._stream = await self._channel.acquire()
        self._connection.outbound.headers(self._stream, self._block(), end=False)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """As leaving the context: reset the call unless it has ended, and give back what was unread."""
        self.cancel()
        self._connection.inflow.abandon(self._stream)

    def _block(self) -> bytes:
        request = self._request
        pairs = request() if callable(request) else request
        return pairs if isinstance(pairs, bytes) else encoded(pairs)

    async def begin_unary(self, frame: bytes) -> None:
        """Instead of entering the context: open the call, send its only message and end the request.

        `close` belongs to it.
        """
        self._ended = True
        self._unary = frame
        self._connection, self._stream = await self._channel.acquire()
        await self._send_unary(frame)

    async def _send_unary(self, frame: bytes) -> None:
        connection, stream = self._connection, self._stream
        block = self._block()
        try:
            head = wire_headers(block, end=False)
            if connection.congested or not connection.outbound.unary(stream, head, frame, None):
                await _send_whole(connection, stream, block, frame)
        except BaseException:
            self.cancel()
            raise

    async def _repeat(self, error: GRPCError) -> None:
        """Send a unary call again that no handler has seen; raise the error if that cannot be."""
        frame = self._unary
        self._refusals += 1
        if not isinstance(error, ConnectionLost) or error.sent or frame is None:
            raise error
        if self._refusals > MAX_REFUSALS:
            raise error
        self._connection, self._stream = await self._channel.acquire(refused_by=self._connection)
        await self._send_unary(frame)

    # --- the request

    async def send_frame(self, frame: bytes, end: bool = False) -> None:
        """Send one message; waits while the server's windows are exhausted. `end` ends the request.

        A server may end a call before it has read the whole request: the rest is dropped then.
        """
        if self._ended:
            raise ProtocolError("the request is already ended")
        self._ended = end
        stream, outbound = self._stream, self._connection.outbound
        offset = 0
        while not stream.remote_ended:
            offset = outbound.data(stream, frame, offset, end=end)
            if offset == len(frame):
                await self._connection.room()
                return
            await until_writable(stream)
        if stream.error is not None:
            raise stream.error

    async def end(self) -> None:
        """End the request."""
        if self._ended:
            raise ProtocolError("the request is already ended")
        self._ended = True
        if not self._stream.remote_ended:
            self._connection.outbound.data(self._stream, b"", 0, end=True)
        await self._connection.room()

    # --- the response

    async def headers(self) -> HeaderBlock:
        """The response headers; of a trailers-only response these are its trailers, too."""
        while (headers := self._stream.headers) is None:
            if self._stream.error is not None:
                await self._repeat(self._stream.error)
            else:
                await until_readable(self._stream)
        self._unary = None
        return headers

    async def receive_frame(self) -> bytes | None:
        """The next message; None after the last, when `trailers` are there."""
        stream, inflow = self._stream, self._connection.inflow
        while True:
            frame = stream.pop()
            if frame is not None:
                inflow.taken(stream, frame)
                return frame
            if stream.error is not None:
                raise stream.error
            if stream.remote_ended:
                _trailers_of(stream)
                return None
            inflow.starving(stream)
            await until_readable(stream)

    @property
    def trailers(self) -> HeaderBlock:
        """How the call ended; only after `receive_frame` has returned None."""
        if not self._stream.remote_ended:
            raise ProtocolError("the call has not ended yet")
        return _trailers_of(self._stream)

    @property
    def has_ended(self) -> bool:
        """Whether the response has ended, or the call was lost."""
        return self._stream.remote_ended

    @property
    def readable(self) -> bool:
        """Whether `receive_frame` would return at once."""
        return self._stream.first is not None or self._stream.remote_ended

    def cancel(self) -> None:
        """Reset the stream, unless it is over."""
        self._connection.h2.cancel(self._stream, ErrorCode.CANCEL)
