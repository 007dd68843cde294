"""The server's side of one call, in messages: grpclib's `server.Stream` surface.

A response of one message is held back until the handler has returned and its nursery has closed, so that
headers, message and trailers leave in one write and a failure of what the handler started still counts.

Imports raw_call and the sans-io modules.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

import trio
from grpclib.const import Cardinality, Status
from multidict import MultiDict

from meshnode.transport import messages, rules
from meshnode.transport.deadline import Deadline
from meshnode.transport.exceptions import GRPCError, ProtocolError
from meshnode.transport.hpack import HeaderBlock, Pair
from meshnode.transport.raw_call import OK_HEAD, OK_TAIL, RawCall
from meshnode.transport.rules import MetadataLike, MetadataValue

if TYPE_CHECKING:
    from meshnode.transport.server_connection import Peer

__all__ = ["Stream"]

Received = TypeVar("Received")
Sent = TypeVar("Sent")


@final
class Stream(AsyncIterator[Received], Generic[Received, Sent]):
    """One request, as its handler sees it."""

    __slots__ = (
        "_call",
        "_encoding",
        "_held",
        "_max_size",
        "_metadata",
        "_receive_encoding",
        "_reply_streams",
        "_request_type",
    )

    def __init__(
        self, call: RawCall, cardinality: Cardinality, request_type: type[Received], max_size: int
    ) -> None:
        self._call = call
        self._reply_streams = cardinality[1]
        self._request_type: Any = request_type
        self._max_size = max_size
        self._held: bytes | None = None
        self._metadata: MultiDict[MetadataValue] | None = None
        self._encoding: bytes | None = None  # of what we send
        encoding = call.derived.encoding
        self._receive_encoding = None if encoding is None else messages.check_encoding(encoding)

    # --- about the request

    @property
    def metadata(self) -> MultiDict[MetadataValue]:
        """What the caller sent along."""
        found = self._metadata
        if found is None:
            found = self._metadata = rules.metadata_of(self._call.headers)
        return found

    @property
    def headers(self) -> HeaderBlock:
        """The request's headers as they came, pseudo-headers included."""
        return self._call.headers

    @property
    def deadline(self) -> Deadline | None:
        """When the call is cancelled."""
        return self._call.deadline

    @property
    def nursery(self) -> trio.Nursery:
        """The request's nursery: the call is answered when everything in it has ended."""
        return self._call.nursery

    @property
    def peer(self) -> Peer:
        """The client's address and certificate."""
        return self._call.peer

    @property
    def path(self) -> str:
        """`/package.Service/Method`."""
        return self._call.path

    @property
    def user_agent(self) -> str | None:
        """What the client calls itself."""
        value = self._call.headers.get(b"user-agent")
        return None if value is None else value.decode("latin-1")

    async def recv_message(self) -> Received | None:
        """The next message; None after the last."""
        frame = self._call.take_frame()  # nearly always there: the coroutine below is worth avoiding
        if frame is None:
            frame = await self._call.receive_frame()
            if frame is None:
                return None
        data = messages.message_of(frame, self._receive_encoding, self._max_size)
        try:
            return self._request_type.parse(data)  # type: ignore[no-any-return]
        except ValueError as error:
            raise GRPCError(Status.INTERNAL, f"malformed request message: {error}") from error

    def __aiter__(self) -> AsyncIterator[Received]:
        return self

    async def __anext__(self) -> Received:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    # --- the response

    def compress_with(self, encoding: str | None) -> None:
        """Compress the messages of this response, if the client accepts that encoding."""
        if self._call.headers_sent:
            raise ProtocolError("initial metadata was already sent")
        wanted = None if encoding is None else encoding.encode("ascii")
        self._encoding = messages.choose_encoding(self._call.headers.get(b"grpc-accept-encoding"), wanted)

    async def send_initial_metadata(self, *, metadata: MetadataLike | None = None) -> None:
        """Begin the response now; `send_message` does it otherwise."""
        if self._call.headers_sent:
            raise ProtocolError("Initial metadata was already sent")
        await self._call.send_headers(self._head(rules.pairs_of(metadata) if metadata else ()))

    async def send_message(self, message: Sent) -> None:
        """Send a message; for a response of one, when the handler has returned."""
        frame = self._frame(message)
        if self._reply_streams:
            if not self._call.headers_sent:
                await self._call.send_headers(self._head(()))
            await self._call.send_frame(frame)
        elif self._held is not None or self._call.answered:
            raise ProtocolError("Message was already sent")
        else:
            self._held = frame

    async def send_trailing_metadata(
        self,
        *,
        status: Status = Status.OK,
        status_message: str | None = None,
        status_details: bytes | None = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        """End the call. `status_details` is an encoded google.rpc.Status."""
        if self._call.answered:
            raise ProtocolError("Trailing metadata was already sent")
        if status is Status.OK and not self._reply_streams and self._held is None:
            raise ProtocolError("Unary response with OK status requires a single message to be sent")
        pairs = rules.pairs_of(metadata) if metadata else ()
        await self._end(rules.trailers(status, status_message, status_details, pairs), ok=status is Status.OK)

    async def cancel(self) -> None:
        """End the call with RST_STREAM instead of a status."""
        self._call.reset()
        await trio.lowlevel.checkpoint()

    # --- for the server

    def finish_now(self) -> bool:
        """The handler has returned: end the call with OK if that is possible in one write."""
        held, call = self._held, self._call
        if held is None or call.headers_sent or self._encoding is not None:
            return False
        return call.respond_now(OK_HEAD, held, OK_TAIL)

    async def finish(self) -> None:
        """The same, taking the time it takes."""
        if self._held is None and not self._reply_streams:
            raise GRPCError(Status.INTERNAL, "the handler returned without a response")
        await self._end(rules.OK_TRAILERS, ok=True)

    async def _end(self, trailers: list[Pair] | tuple[Pair, ...], *, ok: bool) -> None:
        call, held = self._call, self._held
        if held is not None and ok:
            if not call.headers_sent:
                await call.send_headers(self._head(()))
            await call.send_frame(held)
        await call.send_trailers(trailers)

    def _head(self, metadata: list[Pair] | tuple[()]) -> list[Pair]:
        pairs = [*rules.RESPONSE_HEADERS]
        if self._encoding is not None:
            pairs.append((b"grpc-encoding", self._encoding))
        pairs.extend(metadata)
        return pairs

    def _frame(self, message: Any) -> bytes:
        data = bytes(message)
        if self._encoding is None:
            return messages.frame(data)
        return messages.frame(messages.compress(data, self._encoding), compressed=True)
