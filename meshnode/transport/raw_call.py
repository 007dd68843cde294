"""The server's side of one call, in raw messages: what a proxy works with, and what the typed stream is made
of.

Imports trio for waiting, and the sans-io modules.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, final

import trio
from grpclib.const import Status

from meshnode.transport import rules
from meshnode.transport.deadline import Deadline
from meshnode.transport.derived import Derived, derived, encoded, wire
from meshnode.transport.exceptions import ProtocolError
from meshnode.transport.frames import ErrorCode, WireHeaders, wire_headers
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.hpack import HeaderBlock, Pair
from meshnode.transport.waiting import until_readable, until_writable

if TYPE_CHECKING:
    from meshnode.transport.server_connection import Peer, ServerConnection

__all__ = ["RawCall"]

OK_HEAD: Final = wire_headers(rules.RESPONSE_HEADERS_BLOCK, end=False)
OK_TAIL: Final = wire_headers(rules.OK_TRAILERS_BLOCK, end=True)


@final
class RawCall:
    """One request. Messages are never decoded: a *frame* is one gRPC message with its five-byte prefix.

    The handler sends headers, frames and trailers in this order, or everything in one `respond`. The call is
    cancelled when the client resets the stream, when the connection is lost and when the deadline passes.
    """

    __slots__ = (
        "_connection",
        "_headers_sent",
        "_partly_sent",
        "_stream",
        "deadline",
        "derived",
        "finish",
        "finish_now",
        "headers",
        "nursery",
        "scope",
    )

    nursery: trio.Nursery
    """The request's own: whatever the handler starts in it has ended when the call is answered."""

    def __init__(self, connection: ServerConnection, stream: H2Stream) -> None:
        headers = stream.headers
        assert headers is not None
        self._connection = connection
        self._stream = stream
        self._headers_sent = False
        self._partly_sent = False  # a message of which the rest is still to come
        self.headers: HeaderBlock = headers
        self.derived: Derived = headers.cache or derived(headers)
        self.deadline: Deadline | None = None
        self.scope: trio.CancelScope | None = None
        # A typed stream answers after its handler has returned: at once, or if that cannot be, with waiting.
        self.finish_now: Callable[[], bool] | None = None
        self.finish: Callable[[], Awaitable[None]] | None = None

    @property
    def path(self) -> str:
        """`/package.Service/Method`."""
        path = self.derived.path
        if path is None:
            path = self.derived.path = (self.headers.get(b":path") or b"").decode("latin-1")
        return path

    @property
    def peer(self) -> Peer:
        """The client's address and certificate."""
        return self._connection.peer

    @property
    def memo(self) -> Any:
        """A place for what the handler derived from `headers`; requests with the same headers share it."""
        return self.derived.memo

    @memo.setter
    def memo(self, value: Any) -> None:
        self.derived.memo = value

    @property
    def answered(self) -> bool:
        """Whether trailers were sent, or the stream was reset."""
        return self._stream.local_ended

    @property
    def headers_sent(self) -> bool:
        """Whether the response has begun."""
        return self._headers_sent

    # --- the request

    @property
    def readable(self) -> bool:
        """Whether `receive_frame` would return at once."""
        return self._stream.first is not None or self._stream.remote_ended

    @property
    def half_closed(self) -> bool:
        """Whether every message has been received and the client sends no more."""
        return self._stream.remote_ended and self._stream.first is None

    def take_frame(self) -> bytes | None:
        """The next message if it is here already."""
        stream = self._stream
        frame = stream.first
        if frame is not None:
            stream.first = stream.more.popleft() if stream.more else None
            self._connection.inflow.taken(stream, frame)
        return frame

    async def receive_frame(self) -> bytes | None:
        """The next message; None after the last."""
        stream = self._stream
        while True:
            frame = stream.pop()
            if frame is not None:
                self._connection.inflow.taken(stream, frame)
                return frame
            if stream.error is not None:
                raise stream.error
            if stream.remote_ended:
                return None
            self._connection.inflow.starving(stream)
            await until_readable(stream)

    # --- the response

    async def send_headers(self, pairs: Iterable[Pair]) -> None:
        """Begin the response; `pairs` with `:status`."""
        if self._headers_sent:
            raise ProtocolError("headers were already sent")
        self._check_open()
        self._headers_sent = True
        self._connection.outbound.headers(self._stream, encoded(pairs), end=False)
        await self._connection.room()

    async def send_frame(self, frame: bytes) -> None:
        """Send one message; waits while the client's windows are exhausted."""
        if not self._headers_sent:
            await self.send_headers(rules.RESPONSE_HEADERS)
        self._check_open()
        await self._send_data(frame)
        await self._connection.room()

    async def send_trailers(self, pairs: Iterable[Pair]) -> None:
        """End the response. Before anything else was sent `pairs` are the whole of it ("trailers-only")."""
        self._check_open()
        if not self._headers_sent:
            self._headers_sent = True
            if not any(name == b":status" for name, _ in pairs):
                pairs = [*rules.RESPONSE_HEADERS, *pairs]
        self._connection.outbound.headers(self._stream, encoded(pairs), end=True)
        self._connection.h2.finished(self._stream)

    async def respond(self, headers: Iterable[Pair], frame: bytes | None, trailers: Iterable[Pair]) -> None:
        """The whole response of a unary call in one write; without a message as "trailers-only" if both are
        the same.
        """
        if frame is None:
            if headers is not trailers:
                await self.send_headers(headers)
            await self.send_trailers(trailers)
            return
        head, tail = wire(headers, end=False), wire(trailers, end=True)
        if self._connection.congested or not self.respond_now(head, frame, tail):
            await self.send_headers(headers)
            await self.send_frame(frame)
            await self.send_trailers(trailers)

    def respond_now(self, head: WireHeaders, frame: bytes, tail: WireHeaders) -> bool:
        """The same without waiting; False, and nothing sent, if that cannot be."""
        stream = self._stream
        if self._headers_sent:
            raise ProtocolError("headers were already sent")
        if stream.local_ended:
            self._check_open()
        connection = self._connection
        if not connection.outbound.unary(stream, head, frame, tail):
            return False
        self._headers_sent = True
        connection.h2.finished(stream)
        return True

    def reset(self, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """End the call with RST_STREAM instead of a status."""
        self._connection.h2.cancel(self._stream, code)
        self._stream.local_ended = True

    def forget(self) -> None:
        """The request's task ends: let go of what refers back to it."""
        del self.nursery
        self.scope = self.finish = self.finish_now = None

    def cancel(self) -> None:
        """The client is gone."""
        if self.scope is not None:
            self.scope.cancel()

    async def refuse(self, pairs: Iterable[Pair], body: bytes) -> None:
        """Answer a request that is not gRPC; what it sends is dropped, but still has to be correct."""
        self._headers_sent = True
        self._connection.outbound.headers(self._stream, encoded(pairs), end=not body)
        self._connection.h2.discard(self._stream)
        if body:
            await self._send_data(body, end=True)
            self._connection.h2.discard(self._stream)

    def fail(
        self, status: Status, message: str | None, details: bytes | None, extra: Iterable[Pair] = ()
    ) -> None:
        """End the call with an error status, now; nothing if it is answered already."""
        if self._stream.local_ended:
            return
        if self._partly_sent:
            self.reset()  # trailers would come in the middle of a message
            return
        pairs = rules.trailers(status, message, details, tuple(extra))
        if not self._headers_sent:
            self._headers_sent = True
            pairs = [*rules.RESPONSE_HEADERS, *pairs]
        self._connection.outbound.headers(self._stream, encoded(pairs), end=True)
        self._connection.h2.finished(self._stream)

    def _check_open(self) -> None:
        if self._stream.error is not None and self._stream.remote_ended:
            raise self._stream.error
        if self._stream.local_ended:
            raise ProtocolError("the call is already answered")

    async def _send_data(self, frame: bytes, *, end: bool = False) -> None:
        stream, outbound = self._stream, self._connection.outbound
        size, offset = len(frame), 0
        while (offset := outbound.data(stream, frame, offset, end=end)) < size:
            self._partly_sent = offset > 0
            await until_writable(stream)
            self._check_open()
        self._partly_sent = False
