"""One connection: PyMySQL's, whose calls block and run in a thread; trio makes its socket.

A job is a function that runs some statements. Cancelling the call that waits for it ends the job, and sees
its end: it gets a moment, for most answers are on their way; then the server is asked to give up the
statement; then the socket is shut, which ends every wait for it.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar, final

import outcome
import pymysql
import trio
from attrs import field, frozen
from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode_state_mysql._dsn import Dsn
from meshnode_state_mysql._errors import TROUBLE, Abandoned, is_lost, translated

__all__ = ["Connection", "Login", "Session", "connect"]

T = TypeVar("T")

_PATIENCE = 0.5
"""Seconds that an answer gets when nobody waits for it any more."""
_GIVING_UP = 3.0
"""Seconds for the server to give up a statement."""

# A key that is too long must be an error, not cut; and times are in UTC, whatever the server's zone.
_SETTINGS = ("time_zone = '+00:00'", "sql_mode = 'STRICT_ALL_TABLES'")
# Fewer locks than the default: none on the gaps between rows, over which first writers would deadlock.
_ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"


@final
@frozen
class Login:
    """Where and how to connect. `tls` is None for none, or where the server alone decides (`preferred`)."""

    dsn: Dsn
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    database: str | None = None


@final
class _Call(Generic[T]):
    """A function at work in a thread."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.finished = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._outcome: outcome.Outcome[T] | None = None
        trio.lowlevel.start_thread_soon(function, self._deliver, "meshnode-mysql")

    def _deliver(self, result: outcome.Outcome[T]) -> None:
        """In the thread."""
        self._outcome = result
        self._token.run_sync_soon(self.finished.set)

    def result(self) -> T:
        assert self._outcome is not None
        return self._outcome.unwrap()


@final
class Session:
    """What a job has of the connection. Everything here blocks.

    `doubt` is True while the server has something whose outcome is not known: a write outside a
    transaction, or a COMMIT.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.abandoned = False
        self.doubt = False

    def rows(self, sql: str, *arguments: Any) -> Sequence[tuple[Any, ...]]:
        with self._raw.cursor() as cursor:
            self._run(cursor, sql, arguments)
            rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def execute(self, sql: str, *arguments: Any) -> int:
        """How many rows it changed."""
        with self._raw.cursor() as cursor:
            self._run(cursor, sql, arguments)
            return int(cursor.rowcount)

    def write(self, sql: str, *arguments: Any) -> int:
        """As `execute`, outside a transaction: when it is answered it is done."""
        return self._decisive(partial(self.execute, sql, *arguments))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits at the block's end, or undoes everything if it fails."""
        self.execute("BEGIN")
        try:
            yield
            self._stop_if_abandoned()
            self._decisive(self._raw.commit)
        except BaseException:
            try:
                self._raw.rollback()
            except TROUBLE:
                pass  # without its connection the server does it by itself
            raise

    def _run(self, cursor: Any, sql: str, arguments: Sequence[Any]) -> None:
        self._stop_if_abandoned()
        cursor.execute(sql, arguments or None)

    def _decisive(self, action: Callable[[], T]) -> T:
        self.doubt = True
        try:
            result = action()
        except TROUBLE as error:
            self.doubt = is_lost(error)
            raise
        except Abandoned:
            self.doubt = False
            raise
        self.doubt = False
        return result

    def _stop_if_abandoned(self) -> None:
        if self.abandoned:
            raise Abandoned


@final
class Connection:
    """For one call at a time. `kill` asks the server to end the statement of a connection's number."""

    def __init__(
        self, raw: Any, plug: socket.socket, address: str, kill: Callable[[int], Awaitable[None]]
    ) -> None:
        self._raw = raw
        self._plug = plug
        self._address = address
        self._kill = kill
        self._spoiled = False

    async def run(self, job: Callable[[Session], T]) -> T:
        """What the job returns. Raises `ComponentError`; what the job raises of its own comes through."""
        session = Session(self._raw)
        call = _Call(partial(job, session))
        try:
            await call.finished.wait()
        except trio.Cancelled:
            session.abandoned = True
            await self._end(call)
            raise
        try:
            return call.result()
        except TROUBLE as error:
            self._spoiled = self._spoiled or is_lost(error)
            raise translated(self._address, error, doubt=session.doubt) from error

    async def greet(self, greeting: Callable[[], None]) -> None:
        """Logs in. Raises `ComponentUnavailable`: what is wrong may be put right at the server."""
        call = _Call(greeting)
        try:
            await call.finished.wait()
        except trio.Cancelled:
            self._unplug()
            with trio.CancelScope(shield=True):
                await call.finished.wait()
            raise
        try:
            call.result()
        except TROUBLE as error:
            raise ComponentUnavailable(translated(self._address, error).message) from error

    async def _end(self, call: _Call[Any]) -> None:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(_PATIENCE):
                await call.finished.wait()
            if not call.finished.is_set():
                # The request to give up may meet the next statement: nobody else may run one here.
                self._spoiled = True
                with trio.move_on_after(_GIVING_UP):
                    try:
                        await self._kill(self._raw.thread_id())
                    except ComponentError:
                        pass
                    else:
                        await call.finished.wait()
            if not call.finished.is_set():
                self._unplug()
                await call.finished.wait()

    @property
    def reusable(self) -> bool:
        """Whether somebody else may have it: no answer outstanding, no transaction left open."""
        return not self._spoiled and self._raw.open and not self._raw.server_status & SERVER_STATUS_IN_TRANS

    def alive(self) -> bool:
        """False when the server has ended it meanwhile: then there is something to read, if only the end."""
        readable = select.poll()
        readable.register(self._plug, select.POLLIN)
        return not readable.poll(0)

    def close(self) -> None:
        """Does not wait; not while a job runs."""
        if not self.reusable:
            self._unplug()
        if self._raw.open:
            self._raw.close()
        self._plug.close()

    def _unplug(self) -> None:
        try:
            self._plug.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the server was quicker


async def connect(login: Login, kill: Callable[[int], Awaitable[None]]) -> Connection:
    """Raises `ComponentUnavailable`; the caller sets how long it may take."""
    address = login.dsn.address
    try:
        sock = await _dial(login.dsn)
    except OSError as error:
        raise ComponentUnavailable(f"mysql at {address}: {error}") from error
    raw = _client(login)
    # PyMySQL wraps and closes its own; this one shuts what both stand for.
    connection = Connection(raw, sock.dup(), address, kill)
    try:
        await connection.greet(partial(_greet, raw, sock, login.dsn))
    except BaseException:
        connection.close()
        raise
    return connection


async def _dial(dsn: Dsn) -> socket.socket:
    if dsn.path:
        stream = await trio.open_unix_socket(dsn.path)
    else:
        stream = await trio.open_tcp_stream(dsn.host, dsn.port)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(True)
    return sock


def _client(login: Login) -> Any:
    """Not connected yet."""
    dsn = login.dsn
    return pymysql.Connection(
        host=dsn.host or "localhost",
        port=dsn.port,
        user=dsn.user,
        password=dsn.password.encode(),
        database=login.database,
        charset="utf8mb4",
        autocommit=True,
        ssl=login.tls,
        ssl_disabled=dsn.tls == "false",
        program_name="meshnode",
        defer_connect=True,
    )


def _greet(raw: Any, sock: socket.socket, dsn: Dsn) -> None:
    """Blocks."""
    raw.connect(sock)
    settings = [f"{name} = {value}" for name, value in dsn.variables.items()]
    raw.query(_ISOLATION)
    raw.query(f"SET {', '.join([*settings, *_SETTINGS])}")
