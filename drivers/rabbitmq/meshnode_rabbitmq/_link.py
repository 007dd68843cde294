"""The connection to the broker, and the way from trio's side to asyncio's, where aiormq lives.

A `Link` is the component's for as long as it is open; the connection under it is made when somebody needs
one, and made anew when it has broken. Everything but `on_asyncio` runs on the asyncio side.

Habits of aiormq that are dealt with here: when a connection breaks, calls that are under way end with
`CancelledError` though nobody cancelled them; `on_asyncio` and `guarded` tell the two apart. A call that is
cancelled may wait for a broker that no longer reads; `abort` hangs up without asking. And it goes on writing
to a channel that the broker has just closed, for which the broker closes the whole connection; `is_open`
knows as soon as anybody here does.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, final

import aiormq
import trio_asyncio
from aiormq.channel import Channel
from aiormq.connection import TransportFactory
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    ConnectionNotImplemented,
    DeliveryError,
    PublishError,
)
from pamqp.exceptions import PAMQPException
from yarl import URL

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode_rabbitmq._address import Address, Tls

__all__ = ["TROUBLE", "Link", "Lost", "guarded", "is_open", "on_asyncio", "translated"]

T = TypeVar("T")

_CONNECT = 30
"""Seconds until a connection stands, as in the client that daprd uses; heartbeats begin only then."""
_FAREWELL = 3
"""Seconds for saying goodbye."""

# It logs what it raises.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)


@final
class Lost(Exception):
    """The connection or the channel is gone."""


# aiormq raises RuntimeError for a connection that is closed, and pamqp the last two for what the protocol
# cannot say.
TROUBLE = (AMQPError, PAMQPException, Lost, OSError, TimeoutError, RuntimeError, ValueError, struct.error)
"""What goes wrong between us and the broker."""

_REFUSALS = (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    ConnectionNotImplemented,
    DeliveryError,
    ValueError,
    struct.error,
)
"""Answers of a broker that is there: the same request would fare no better."""


async def guarded(call: Awaitable[T]) -> T:
    """The call's result; `Lost` where it was cancelled by aiormq, not by us."""
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Lost("the connection was closed") from None


async def on_asyncio(function: Callable[[], Awaitable[T]]) -> T:
    """From trio's side: the function's result; cancelling this cancels it."""

    async def run() -> T:
        return await guarded(function())

    result: T = await trio_asyncio.aio_as_trio(run)()  # type: ignore[attr-defined,no-untyped-call]
    return result


def translated(
    address: Address, error: BaseException, refusal: type[ComponentError], what: str = ""
) -> ComponentError:
    """The component's error for one of `TROUBLE`; `refusal` is the class of those that no retry will mend."""
    text = f"rabbitmq at {address}: {what}{_words(error)}"
    # A certificate's error is an OSError and a ValueError.
    refused = isinstance(error, _REFUSALS) and not isinstance(error, OSError)
    return refusal(text) if refused else ComponentUnavailable(text)


def _words(error: BaseException) -> str:
    """aiormq's errors have what the broker said among their arguments."""
    if isinstance(error, PublishError):
        return f"no queue takes the message ({error.args[0]})"
    if isinstance(error, DeliveryError):
        return "the broker did not take the message"
    said = error.args[-1] if error.args else None
    return str(getattr(said, "reply_text", said) or type(error).__name__)


def is_open(channel: Channel) -> bool:
    """Whether it may be written to."""
    connection = channel.connection
    return connection.is_opened and connection.channels.get(channel.number) is channel


@final
class _Socket(TransportFactory):
    """Opens the socket of one connection and keeps hold of it, so that it can be closed in any case."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await asyncio.open_connection(url.host, url.port, ssl=self._context)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


@final
class Link:
    """See the module. `name` is what the broker calls the connection."""

    def __init__(self, address: Address, tls: Tls, *, heartbeat: int = 10, name: str = "") -> None:
        self.address = address
        self._context = tls.context() if address.encrypted else None
        self._url = URL.build(
            scheme=address.scheme,
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            query={
                "heartbeat": str(heartbeat),
                "auth": "external" if address.external else "plain",
                **({"name": name} if name else {}),
            },
        )
        self._lock = asyncio.Lock()
        self._socket = _Socket(self._context)
        self._connection: aiormq.Connection | None = None

    async def connect(self) -> aiormq.Connection:
        """The connection, made now if there is none. Raises one of `TROUBLE`."""
        async with self._lock:
            connection = self._connection
            if connection is None or not connection.is_opened:
                connection = self._connection = await self._new_connection()
            return connection

    async def _new_connection(self) -> aiormq.Connection:
        self._socket.abort()
        self._socket = socket = _Socket(self._context)
        connection = aiormq.Connection(self._url, transport_factory=socket)
        connection.vhost = self.address.vhost
        try:
            async with asyncio.timeout(_CONNECT):
                await guarded(connection.connect())
        except BaseException:
            socket.abort()
            raise
        return connection

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Raises one of `TROUBLE`."""
        connection = await self.connect()
        channel = await guarded(connection.channel(publisher_confirms=confirms, on_return_raises=True))
        assert isinstance(channel, Channel)
        return channel

    async def ping(self) -> None:
        """A round trip to the broker. Raises one of `TROUBLE`."""
        channel = await self.channel()
        await guarded(channel.close())

    async def hanging_up(self, call: Awaitable[T]) -> T:
        """A call that says goodbye. A broker that does not answer it soon is hung up on, which ends the call:
        no cancelling would, as long as aiormq cannot write.
        """
        timer = asyncio.get_running_loop().call_later(_FAREWELL, self.abort)
        try:
            return await guarded(call)
        finally:
            timer.cancel()

    def abort(self) -> None:
        """Hang up: the broker takes back what this connection holds, and every call under way fails."""
        self._socket.abort()

    async def close(self) -> None:
        """Does not raise."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None and connection.is_opened:
                await self.hanging_up(connection.close())
        except TROUBLE:
            pass
        finally:
            self.abort()
