"""A stream on which the component sends messages and we acknowledge them: PullMessages and Read.

A message is taken from the stream when its delivery can begin, so a component that sends more than we work
on fills the stream's window and then waits. What has not been acknowledged when the stream ends is the
component's again; therefore leaving ends the stream properly, acknowledgements first, and waits a moment for
the component to say that it has seen the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, final

import trio

from meshnode.errors import ComponentError, ComponentUnavailable, Status
from meshnode.interfaces import Deliveries
from meshnode.pluggable.client.connection import Session
from meshnode.pluggable.client.errors import error_of
from meshnode.transport import Cardinality, GRPCError, ProtocolError

__all__ = ["DEFAULT_LIMIT", "Pull", "opened"]

DEFAULT_LIMIT = 100
"""Deliveries side by side where nobody says how many: the component has limits of its own."""

_FAREWELL_SECONDS = 1.0


@final
class Pull:
    """One stream, open."""

    def __init__(self, stream: Any, kind: type[ComponentError]) -> None:
        self._stream = stream
        self._kind = kind
        self._sending = trio.Lock()

    async def begin(self, first: Any | None, attentive: bool, ping: Callable[[], Awaitable[Any]]) -> None:
        """Returns when the component listens to its source, if it says so; else when it has answered a ping,
        which is all that others offer.
        """
        try:
            if first is not None:
                await self._stream.send_message(first)
            else:
                await self._stream.send_request()
            if attentive:
                await self._stream.recv_initial_metadata()
            else:
                await _answered(ping)
        except GRPCError as error:
            raise error_of(error, self._kind) from error

    async def messages(self, deliveries: Deliveries, stop: trio.Event, start: Callable[[Any], None]) -> None:
        """Give each message to `start` when there is room for it, until `stop`."""
        while await deliveries.room():
            try:
                message = await deliveries.unless_stopped(self._stream.recv_message)
            except GRPCError as error:
                raise error_of(error, self._kind) from error
            if message is not None:
                start(message)
            elif not stop.is_set():
                await self._has_ended()

    async def acknowledge(self, message: Any) -> None:
        try:
            async with self._sending:
                await self._stream.send_message(message)
        except (GRPCError, ProtocolError) as error:
            message = f"the component ended the stream before it was told of a message: {error}"
            raise ComponentUnavailable(message, status=Status.UNAVAILABLE) from error

    async def _has_ended(self) -> None:
        """The component has ended the stream, which is not its part; raises with its reason."""
        try:
            await self._stream.end()
            await self._stream.recv_trailing_metadata()
        except GRPCError as error:
            raise error_of(error, self._kind) from error
        raise ComponentUnavailable("the component ended the stream", status=Status.UNAVAILABLE)


async def _answered(ping: Callable[[], Awaitable[Any]]) -> None:
    """A component without Ping has answered, too."""
    try:
        await ping()
    except ComponentError as error:
        if error.code is not Status.UNIMPLEMENTED:
            raise


@asynccontextmanager
async def opened(
    session: Session, path: str, request_type: type[Any], reply_type: type[Any], kind: type[ComponentError]
) -> AsyncIterator[Pull]:
    call: Any = session.channel.request(
        path, Cardinality.STREAM_STREAM, request_type, reply_type, metadata=session.metadata
    )
    with session.lasting():
        async with call as stream:
            try:
                yield Pull(stream, kind)
            finally:
                with trio.CancelScope(shield=True):
                    await _say_farewell(stream)


async def _say_farewell(stream: Any) -> None:
    with trio.move_on_after(_FAREWELL_SECONDS) as scope:
        try:
            await stream.end()
            await _until_ended(stream)
        except (GRPCError, ProtocolError):
            pass  # it ended earlier; whoever used the stream has seen why
    if scope.cancelled_caught:
        await stream.cancel()


async def _until_ended(stream: Any) -> None:
    while await stream.recv_message() is not None:
        pass  # not begun, not acknowledged: the component's again
    await stream.recv_trailing_metadata()
