"""What the generated stubs and service bases stand on: the four call shapes, over grpclib's surface, on trio.

betterproto2's own bases need asyncio for bidirectional calls; these need nothing but trio. A stub's channel
is anything with grpclib's `Channel.request(...)`; a handler's stream is anything with grpclib's server
`Stream` surface.

A call that streams is an async context manager around its responses, never an async generator: it may have a
task of its own (which sends the requests while responses arrive), and a generator that yields inside a
nursery breaks cancellation. Leaving the context ends the call, whatever state it is in.

May import: grpclib.const, grpclib.exceptions, trio.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar, final

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

if TYPE_CHECKING:
    from betterproto2 import Message

__all__ = ["MetadataLike", "ServiceBase", "ServiceStub", "unimplemented"]

MetadataLike: TypeAlias = "Mapping[str, str | bytes] | Collection[tuple[str, str | bytes]]"

RequestT = TypeVar("RequestT", bound="Message")
ResponseT = TypeVar("ResponseT", bound="Message")

# What sending raises when the far side has already ended the call: the reason arrives with the responses.
_CALL_ENDED = (
    GRPCError,
    ProtocolError,
    StreamTerminatedError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)


class ServiceStub:
    """Base of the generated client stubs."""

    def __init__(
        self,
        channel: Any,
        *,
        timeout: float | None = None,
        deadline: Any | None = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        """`timeout`, `deadline` and `metadata` are the defaults of every call."""
        self.channel = channel
        self.timeout = timeout
        self.deadline = deadline
        self.metadata = metadata

    def _open(
        self,
        route: str,
        cardinality: Cardinality,
        request_type: type[RequestT],
        response_type: type[ResponseT],
        timeout: float | None,
        deadline: Any | None,
        metadata: MetadataLike | None,
    ) -> Any:
        return self.channel.request(
            route,
            cardinality,
            request_type,
            response_type,
            timeout=self.timeout if timeout is None else timeout,
            deadline=self.deadline if deadline is None else deadline,
            metadata=self.metadata if metadata is None else metadata,
        )

    async def _unary_unary(
        self,
        route: str,
        request: RequestT,
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        deadline: Any | None = None,
        metadata: MetadataLike | None = None,
    ) -> ResponseT:
        call = self._open(
            route, Cardinality.UNARY_UNARY, type(request), response_type, timeout, deadline, metadata
        )
        async with call as stream:
            await stream.send_message(request, end=True)
            response: ResponseT | None = await stream.recv_message()
        return _present(response, route)

    @asynccontextmanager
    async def _unary_stream(
        self,
        route: str,
        request: RequestT,
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        deadline: Any | None = None,
        metadata: MetadataLike | None = None,
    ) -> AsyncIterator[AsyncIterator[ResponseT]]:
        call = self._open(
            route, Cardinality.UNARY_STREAM, type(request), response_type, timeout, deadline, metadata
        )
        async with call as stream:
            await stream.send_message(request, end=True)
            responses: _Responses[ResponseT] = _Responses(stream)
            yield responses
            await responses.abandon()

    async def _stream_unary(
        self,
        route: str,
        requests: AsyncIterable[RequestT] | Iterable[RequestT],
        request_type: type[RequestT],
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        deadline: Any | None = None,
        metadata: MetadataLike | None = None,
    ) -> ResponseT:
        call = self._open(
            route, Cardinality.STREAM_UNARY, request_type, response_type, timeout, deadline, metadata
        )
        async with _sending(call, requests) as stream:
            response: ResponseT | None = await stream.recv_message()
            # The server's end, not its message, is the end of the call: it may go on reading.
            if response is not None and await stream.recv_message() is not None:
                raise GRPCError(Status.INTERNAL, f"{route} answered with several messages")
            await _finish(stream)
        return _present(response, route)

    @asynccontextmanager
    async def _stream_stream(
        self,
        route: str,
        requests: AsyncIterable[RequestT] | Iterable[RequestT],
        request_type: type[RequestT],
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        deadline: Any | None = None,
        metadata: MetadataLike | None = None,
    ) -> AsyncIterator[AsyncIterator[ResponseT]]:
        call = self._open(
            route, Cardinality.STREAM_STREAM, request_type, response_type, timeout, deadline, metadata
        )
        async with _sending(call, requests) as stream:
            responses: _Responses[ResponseT] = _Responses(stream)
            yield responses
            await responses.abandon()


@final
class _Responses(AsyncIterator[ResponseT]):
    """The answers of a call; one whose reader leaves before their end is cancelled, not waited for."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._ended = False

    async def __anext__(self) -> ResponseT:
        try:
            response: ResponseT | None = await self._stream.recv_message()
        except GRPCError:
            self._ended = True
            raise
        if response is None:
            self._ended = True
            await _finish(self._stream)
            raise StopAsyncIteration
        return response

    async def abandon(self) -> None:
        """End the call when its answers have not ended."""
        if not self._ended:
            await self._stream.cancel()


class ServiceBase:
    """Base of the generated service bases."""

    async def _receive(self, stream: Any) -> Any:
        """The request of a call whose client sends exactly one."""
        request = await stream.recv_message()
        if request is None:
            raise GRPCError(Status.INTERNAL, "the call ended without its request message")
        return request

    async def _send_all(self, stream: Any, responses: Any) -> None:
        """Send what the handler's async generator yields, and close it whatever happens."""
        async with aclosing(responses):
            async for response in responses:
                await stream.send_message(response)


def unimplemented(route: str, block: str) -> NoReturn:
    """Answer for a method that nobody has overridden."""
    raise GRPCError(Status.UNIMPLEMENTED, f"{route} is not implemented: this node has no {block} block yet")


def _present(response: ResponseT | None, route: str) -> ResponseT:
    if response is None:
        raise GRPCError(Status.INTERNAL, f"{route} ended with status OK but without its response message")
    return response


async def _finish(stream: Any) -> None:
    """Raise the status of a call that the server has ended, unless it is OK.

    The server may end a call before the client has; the stream tells its status only when both have.
    """
    await _sent(stream.end)
    await stream.recv_trailing_metadata()


@asynccontextmanager
async def _sending(call: AbstractAsyncContextManager[Any], requests: Any) -> AsyncIterator[Any]:
    """The call's stream, with a task that sends `requests` for as long as the context lasts."""
    alone: BaseException | None = None
    async with call as stream:
        await stream.send_request()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send_requests, stream, requests)
                yield stream
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            alone = group.exceptions[0]
        if alone is not None:
            # Callers catch GRPCError: the nursery is ours, so its group must not be seen.
            raise alone


async def _send_requests(stream: Any, requests: Any) -> None:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            if not await _sent(stream.send_message, request):
                return
    else:
        for request in requests:
            if not await _sent(stream.send_message, request):
                return
    await _sent(stream.end)


async def _sent(send: Callable[..., Any], *args: Any) -> bool:
    try:
        await send(*args)
    except _CALL_ENDED:
        return False
    return True
