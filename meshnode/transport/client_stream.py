"""The client's side of one call, in messages: grpclib's `client.Stream` surface.

A deadline covers what waits for the server, not the caller's own code in between; no cancel scope stays open
while the caller runs, so streams may be used inside async generators, as generated stubs do.

Imports trio, raw_client and the sans-io modules.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

import trio
from grpclib.const import Cardinality, Status
from multidict import MultiDict

from meshnode.transport import messages, rules
from meshnode.transport.deadline import Deadline
from meshnode.transport.exceptions import GRPCError, ProtocolError
from meshnode.transport.hpack import HeaderBlock, Pair, encode
from meshnode.transport.raw_client import RawClientCall
from meshnode.transport.rules import MetadataValue

if TYPE_CHECKING:
    from meshnode.transport.channel import Channel

__all__ = ["Stream"]

Sent = TypeVar("Sent")
Received = TypeVar("Received")
T = TypeVar("T")


@final
class Stream(AsyncIterator[Received], Generic[Sent, Received]):
    """One call: enter it, send, receive, leave. Leaving waits for the end of the call and raises its
    error.
    """

    def __init__(
        self,
        channel: Channel,
        base: bytes,
        cardinality: Cardinality,
        reply_type: type[Received],
        *,
        deadline: Deadline | None,
        metadata: list[Pair],
        max_size: int,
    ) -> None:
        self._channel = channel
        self._base = base  # the encoded headers that all calls of the method share
        self._request_streams, self._reply_streams = cardinality
        self._reply_type: Any = reply_type
        self._metadata = metadata
        self._max_size = max_size
        self._call: RawClientCall | None = None
        self._ended = False
        self._cancelled = False
        self._finished = False
        self._received = False
        self._sent = False
        self._encoding: bytes | None = None
        self.deadline = deadline
        self.initial_metadata: MultiDict[MetadataValue] | None = None
        self.trailing_metadata: MultiDict[MetadataValue] | None = None
        self.trailers: HeaderBlock | None = None
        """The raw trailers, status included, when the call has ended."""

    async def __aenter__(self) -> Stream[Sent, Received]:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        call = self._call
        if call is None:
            return
        try:
            if exc is None and not self._cancelled:
                await self._complete()
        finally:
            await call.__aexit__(None, None, None)

    async def _complete(self) -> None:
        if self._ended and not self._finished:
            if self.initial_metadata is None:
                await self.recv_initial_metadata()
            if not self._finished:
                await self.recv_trailing_metadata()

    # --- the request

    async def send_request(self, *, end: bool = False) -> None:
        """Open the call; `send_message` does it otherwise."""
        if self._call is not None:
            raise ProtocolError("Request is already sent")
        if end and not self._request_streams:
            raise ProtocolError("Unary request requires a message to be sent before ending outgoing stream")
        call = RawClientCall(self._channel, self._block)
        await self._within(call.__aenter__)
        self._call = call
        if end:
            await self.end()

    async def send_message(self, message: Sent, *, end: bool = False) -> None:
        """Send a message; a unary request ends with it."""
        if self._ended:
            raise ProtocolError("Stream is ended")
        frame = messages.frame(bytes(message))  # type: ignore[call-overload]
        end = end or not self._request_streams
        self._ended = end
        if end and self._call is None:
            call = RawClientCall(self._channel, self._block)
            await self._within(call.begin_unary, frame)
            self._call = call
            return
        if self._call is None:
            await self.send_request()
        await self._within(self._open_call().send_frame, frame, end)
        self._check_early_end()

    async def end(self) -> None:
        """End the request."""
        call = self._open_call()
        if self._ended:
            if self._request_streams:
                raise ProtocolError("Stream was already ended")
            return
        self._ended = True
        await self._within(call.end)

    def _check_early_end(self) -> None:
        """A server that refuses the rest of a request says why."""
        call = self._open_call()
        if call.has_ended and not self._finished:
            error = rules.result_of(call.trailers)
            if error is not None:
                raise error

    # --- the response

    async def recv_initial_metadata(self) -> None:
        """Wait for the response to begin; raises its error if that is all there is to it."""
        if self.initial_metadata is not None:
            raise ProtocolError("Initial metadata was already received")
        call = self._open_call()
        headers = await self._within(call.headers)
        status = headers.get(b":status")
        if status != b"200" or not rules.is_grpc(headers.get(b"content-type")):
            self._finished = True
            call.cancel()
            raise rules.result_of(headers) or GRPCError(Status.UNKNOWN, "the response is not gRPC")
        if b"grpc-status" in headers.map and call.has_ended:
            self.initial_metadata = MultiDict()
            self._end(headers)
            return
        self._encoding = messages.check_encoding(headers.get(b"grpc-encoding"))
        self.initial_metadata = rules.metadata_of(headers)

    async def recv_message(self) -> Received | None:
        """The next message; None after the last."""
        if self.initial_metadata is None:
            await self.recv_initial_metadata()
        call = self._open_call()
        frame = await (call.receive_frame() if call.readable else self._within(call.receive_frame))
        if frame is None:
            return None
        if self._received and not self._reply_streams:
            raise GRPCError(Status.INTERNAL, "the response of a unary call has several messages")
        self._received = True
        data = messages.message_of(frame, self._encoding, self._max_size)
        try:
            return self._reply_type.parse(data)  # type: ignore[no-any-return]
        except ValueError as error:
            raise GRPCError(Status.INTERNAL, f"malformed response message: {error}") from error

    def __aiter__(self) -> AsyncIterator[Received]:
        return self

    async def __anext__(self) -> Received:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def recv_trailing_metadata(self) -> None:
        """Wait for the call to end; raises its error."""
        if not self._ended:
            raise ProtocolError("Outgoing stream was not ended")
        if self.initial_metadata is None:
            raise ProtocolError("Initial metadata was not received before waiting for trailing metadata")
        if self._finished:
            return
        call = self._open_call()
        while await self._within(call.receive_frame) is not None:
            if not self._reply_streams and self._received:
                raise GRPCError(Status.INTERNAL, "the response of a unary call has several messages")
            self._received = True
        self._end(call.trailers)

    def _end(self, trailers: HeaderBlock) -> None:
        self._finished = True
        self.trailers = trailers
        self.trailing_metadata = rules.metadata_of(trailers)
        error = rules.result_of(trailers)
        if error is not None:
            raise error
        if not self._reply_streams and not self._received:
            raise GRPCError(Status.INTERNAL, "the response of a unary call has no message")

    async def cancel(self) -> None:
        """Reset the stream."""
        call = self._open_call()
        if self._cancelled:
            raise ProtocolError("Stream was already cancelled")
        self._cancelled = True
        call.cancel()
        await trio.lowlevel.checkpoint()

    # --- inside

    def _open_call(self) -> RawClientCall:
        if self._call is None:
            raise ProtocolError("Request was not sent yet")
        return self._call

    def _block(self) -> bytes:
        extra: list[Pair] = []
        if self.deadline is not None:
            extra.append((b"grpc-timeout", rules.format_timeout(self.deadline.time_remaining())))
        extra.extend(self._metadata)
        return self._base + encode(extra) if extra else self._base

    async def _within(self, operation: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run what may wait for the server, no longer than the deadline allows."""
        if self.deadline is None:
            return await operation(*args)
        with trio.CancelScope(deadline=self.deadline.at):
            return await operation(*args)
        if self._call is not None:
            self._cancelled = True
            self._call.cancel()
        raise GRPCError(Status.DEADLINE_EXCEEDED, "Deadline Exceeded")
