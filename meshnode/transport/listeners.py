"""Addresses to listen on, and the sockets behind them.

An address is "host:port" ("[::1]:0" for IPv6, ":50001" for all interfaces) or "unix:/path". Sockets are
opened here rather than by trio's helpers because the transport drives them raw.

Imports trio.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from ssl import SSLContext
from typing import Final, Protocol, final

import trio

__all__ = ["AnyListener", "Listener", "connect", "open_listeners", "parse_address"]

_BACKLOG: Final = 1024
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_EXHAUSTED_PAUSE: Final = 0.1


class AnyListener(Protocol):
    """What a server accepts connections from: a `Listener`, or one that gives other streams, such as
    in-memory ones.
    """

    @property
    def address(self) -> str: ...

    async def accept(self) -> socket.socket | trio.abc.Stream: ...

    def close(self) -> None: ...


@final
class Listener:
    """One listening socket. `aclose` ends it; a Unix socket's path goes with it."""

    def __init__(self, sock: socket.socket, ssl: SSLContext | None = None) -> None:
        self._sock = sock
        self.ssl = ssl
        if ssl is not None:
            ssl.set_alpn_protocols(["h2"])
        self._name = sock.getsockname()

    @property
    def address(self) -> str:
        """Where it listens: with the port the system chose, if that was asked for."""
        if self._sock.family == socket.AF_UNIX:
            return f"unix:{self._name}"
        host, port = self._name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def port(self) -> int:
        """The TCP port; 0 for Unix sockets."""
        return 0 if self._sock.family == socket.AF_UNIX else int(self._name[1])

    async def accept(self) -> socket.socket:
        """The next connection, non-blocking and without Nagle's delay."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                await trio.sleep(_EXHAUSTED_PAUSE)  # others have to close something first
                continue
            prepare(sock)
            return sock

    def close(self) -> None:
        """Stop listening."""
        if self._sock.fileno() < 0:
            return
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        if self._sock.family == socket.AF_UNIX:
            with suppress(OSError):
                os.unlink(self._name)


def prepare(sock: socket.socket) -> None:
    """What every connected socket needs."""
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def parse_address(address: str) -> tuple[str, int] | str:
    """(host, port), or the path of a Unix socket; ValueError for what is neither."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path:
            raise ValueError("unix: without a path")
        return path
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{address!r} is neither host:port nor unix:/path")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def open_listeners(
    address: str, *, ssl: SSLContext | None = None, reuse_port: bool = False
) -> list[Listener]:
    """Listen on every address the name stands for, all on the same port. Raises OSError that names it."""
    parsed = parse_address(address)
    try:
        if isinstance(parsed, str):
            return [Listener(_listen_unix(parsed), ssl)]
        return await _listen_all(*parsed, ssl, reuse_port)
    except OSError as error:
        # The system says what is wrong, and not with which address.
        words = error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen on {address}: {words[:1].lower()}{words[1:]}") from error


async def _listen_all(host: str, port: int, ssl: SSLContext | None, reuse_port: bool) -> list[Listener]:
    flags = socket.AI_PASSIVE
    found = await trio.socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    listeners: list[Listener] = []
    try:
        for family, _, _, _, where in dict.fromkeys(found):
            target = (where[0], listeners[0].port if listeners else port, *where[2:])
            sock = _listen_tcp(family, target, reuse_port, optional=bool(listeners))
            if sock is not None:
                listeners.append(Listener(sock, ssl))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listen_tcp(
    family: int, where: tuple[object, ...], reuse_port: bool, *, optional: bool
) -> socket.socket | None:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if optional:
            return None  # a machine without IPv6 still resolves names to it
        raise
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_unix(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket nobody listens on any more; anything else at the path is bind's to complain about."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return


async def connect(address: str) -> socket.socket:
    """A connected socket, non-blocking; OSError if nobody is there."""
    parsed = parse_address(address)
    if isinstance(parsed, str):
        return await _connect_to(socket.AF_UNIX, parsed)
    host, port = parsed
    found = await trio.socket.getaddrinfo(host or "localhost", port, type=socket.SOCK_STREAM)
    failures: list[OSError] = []
    for family, _, _, _, where in found:
        try:
            return await _connect_to(family, where)
        except OSError as error:
            failures.append(error)
    raise failures[0]


async def _connect_to(family: int, where: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        prepare(sock)
        code = sock.connect_ex(where)  # type: ignore[arg-type]
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, f"{os.strerror(code)}: {_shown(where)}")
    except BaseException:
        sock.close()
        raise
    return sock


def _shown(where: object) -> str:
    if isinstance(where, tuple):
        host, port = where[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"unix:{where}"
