"""One connection to one member (asyncio side).

A connection that has let an answer wait for too long may be dead, or one call slow: new calls get a new one,
and it is closed when those that are under way on it are done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ssl import SSLContext
from typing import final

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.exceptions import ProtocolError, StreamTerminatedError

__all__ = ["TROUBLE", "Link", "Lost", "Member"]

TROUBLE = (OSError, StreamTerminatedError, ProtocolError)
"""What a connection that fails raises in the calls on it."""

_KEEPALIVE = Configuration(
    # Where calls or watches wait, a silent member is asked whether it lives. etcd turns away who asks more
    # often than every 5 s.
    _keepalive_time=10.0,
    _keepalive_timeout=5.0,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=9.0,
)


@final
class Lost(Exception):
    """A member failed. `sent` is False when the request surely never reached it."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@final
class Link:
    """A connection and those who use it."""

    def __init__(self, host: str, port: int, tls: SSLContext | None) -> None:
        self.channel = Channel(host, port, ssl=tls, config=_KEEPALIVE)
        self._users = 0
        self._retired = False
        self._closed = False

    @contextmanager
    def use(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._close_if_idle()

    @property
    def busy(self) -> bool:
        return self._users > 0

    def retire(self) -> None:
        self._retired = True
        self._close_if_idle()

    def close(self) -> None:
        self._closed = True
        self.channel.close()

    def _refuse_when_closed(self) -> None:
        """Also after connecting: the channel does not know of a connection that was being made."""
        if self._closed:
            self.channel.close()
            raise Lost("closed", sent=False)

    def _close_if_idle(self) -> None:
        if self._retired and not self._users:
            self.close()

    async def connect(self, longest: float) -> bool:
        """Whether it can be used; not one that has broken and is not yet forgotten. Raises `Lost`."""
        self._refuse_when_closed()
        try:
            async with asyncio.timeout(longest):
                protocol = await self.channel.__connect__()
        except TimeoutError as error:
            raise Lost("no connection in time", sent=False) from error
        except TROUBLE as error:
            raise Lost(str(error) or type(error).__name__, sent=False) from error
        self._refuse_when_closed()
        return not protocol.connection.is_closing()


@final
class Member:
    """One member of the cluster, and the connection that new calls use."""

    def __init__(self, host: str, port: int, tls: SSLContext | None) -> None:
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._where = (host, port, tls)
        self._retired: list[Link] = []
        self._closed = False
        self.link = Link(*self._where)

    @asynccontextmanager
    async def connected(self, longest: float) -> AsyncIterator[Link]:
        """The connection that new calls use. Raises `Lost`."""
        for _ in range(2):
            link = self.link
            with link.use():
                if await link.connect(longest):
                    yield link
                    return
            self.renew(link)
        raise Lost("the connection breaks at once", sent=False)

    def renew(self, link: Link) -> None:
        """New calls get a new connection, if they do not already."""
        if self.link is link and not self._closed:
            self.link = Link(*self._where)
            link.retire()
            self._retired = [one for one in (*self._retired, link) if one.busy]

    def close(self) -> None:
        self._closed = True
        for link in (*self._retired, self.link):
            link.close()
