"""One connection to a broker: dialled, written to, read from, kept alive.

What is to be sent is put into a queue that one task writes from, so that nobody who is cancelled leaves half
a packet behind. What may be in it is bounded by who puts it there: acknowledgements of messages that are
held, publications that wait for theirs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

import trio
from attrs import frozen

from meshnode.errors import ComponentUnavailable
from meshnode_mqtt import _packets
from meshnode_mqtt._options import Broker
from meshnode_mqtt._packets import ConnAck, Decoder, Packet

__all__ = ["Link", "Login", "dial"]

_DIAL_SECONDS = 20.0
"""As long as Dapr's component waits."""
_KEEP_ALIVE = 30
_ANSWER_SECONDS = 10.0
_GOODBYE_SECONDS = 1.0
_TROUBLE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, _packets.ProtocolError)


@final
@frozen
class Login:
    """As whom a connection is made. Without `clean` the broker keeps the session of the client id."""

    broker: Broker
    client_id: str
    clean: bool


@final
class Link:
    """Made by `dial`; works while `run` runs."""

    def __init__(self, broker: Broker, stream: trio.abc.Stream) -> None:
        self._broker = broker
        self._stream = stream
        self._decoder = Decoder()
        self._out: list[bytes] = []
        self._work = trio.Event()
        self._written = trio.Event()
        self._heard = trio.Event()
        self._reading = True
        self._leaving = False
        self._gone = trio.Event()

    def put(self, packet: bytes) -> None:
        self._out.append(packet)
        self._work.set()

    async def flush(self) -> None:
        """Returns when what was put is sent."""
        while self._out:
            await self._written.wait()

    async def run(
        self, handle: Callable[[Packet], None], room: Callable[[], Awaitable[None]], end: trio.Event
    ) -> None:
        """Hands packets to `handle` until `end` is set, and says goodbye. Raises `ComponentUnavailable`.

        Nothing is read while `room` waits: the broker notices, by its own limits or TCP's.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._ping)
                nursery.start_soon(self._read, handle, room)
                await end.wait()
                # The broker closes then. To close first, with something unread, would take from it what it
                # has not read yet: acknowledgements among them.
                self._leaving = True
                self.put(_packets.DISCONNECT)
                with trio.move_on_after(_GOODBYE_SECONDS):
                    await self._gone.wait()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            _, rest = group.split(_TROUBLE)
            if rest is not None:
                raise
            error = _first(group)
            raise ComponentUnavailable(f"{self._broker}: {_words(error)}") from error
        finally:
            await trio.aclose_forcefully(self._stream)

    async def receive(self) -> Packet:
        """The next packet. Raises what `_TROUBLE` has."""
        while (packet := self._decoder.next()) is None:
            data = await self._stream.receive_some(65536)
            if not data:
                raise trio.BrokenResourceError("the broker closed the connection")
            self._decoder.feed(data)
            self._heard.set()
        return packet

    async def _read(self, handle: Callable[[Packet], None], room: Callable[[], Awaitable[None]]) -> None:
        try:
            while True:
                packet = await self.receive()
                handle(packet)
                self._reading = False
                await room()
                self._reading = True
        except _TROUBLE:
            if not self._leaving:
                raise
            self._gone.set()

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            count = len(self._out)
            await self._stream.send_all(b"".join(self._out))
            del self._out[:count]
            if self._out:
                self._work.set()
            self._written.set()
            self._written = trio.Event()

    async def _ping(self) -> None:
        while True:
            await trio.sleep(_KEEP_ALIVE / 2)
            self._heard = trio.Event()
            self.put(_packets.PINGREQ)
            with trio.move_on_after(_ANSWER_SECONDS):
                await self._heard.wait()
            if self._reading and not self._heard.is_set():
                raise trio.BrokenResourceError("the broker does not answer")

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def send_now(self, packet: bytes) -> None:
        """Before `run` has begun."""
        await self._stream.send_all(packet)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    cause = error.__cause__  # of a broken stream, what broke it
    return str(error) or (str(cause) if cause else "") or type(error).__name__


async def dial(login: Login) -> tuple[Link, bool]:
    """A link, and whether the broker had kept the session. Raises `ComponentUnavailable`."""
    broker = login.broker
    stream: trio.abc.Stream | None = None
    try:
        with trio.fail_after(_DIAL_SECONDS):
            stream = await trio.open_tcp_stream(broker.host, broker.port)
            if broker.tls is not None:
                stream = trio.SSLStream(stream, broker.tls, server_hostname=broker.host)
            link = Link(broker, stream)
            return link, await _sign_in(link, login)
    except (*_TROUBLE, trio.TooSlowError, ComponentUnavailable) as error:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        if isinstance(error, ComponentUnavailable):
            raise
        words = "no answer in time" if isinstance(error, trio.TooSlowError) else _words(error)
        raise ComponentUnavailable(f"{broker}: {words}") from error
    except BaseException:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise


async def _sign_in(link: Link, login: Login) -> bool:
    broker = login.broker
    await link.send_now(
        _packets.connect(
            login.client_id,
            clean=login.clean,
            keep_alive=_KEEP_ALIVE,
            user=broker.user,
            password=broker.password,
        )
    )
    answer = await link.receive()
    if not isinstance(answer, ConnAck):
        raise _packets.ProtocolError("the first packet is not CONNACK")
    if answer.code:
        words = _packets.REFUSALS.get(answer.code, f"refused with code {answer.code}")
        raise ComponentUnavailable(f"{broker}: {words}")
    return answer.session_present
