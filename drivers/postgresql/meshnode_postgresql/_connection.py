"""One connection: libpq without blocking, trio waits for its socket."""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping, Sequence
from typing import final

import trio
from psycopg import OperationalError, pq
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, PollingStatus, TransactionStatus
from psycopg.pq.abc import PGcancelConn, PGconn, PGresult

from meshnode.errors import ComponentUnavailable

__all__ = ["Connection", "Refused", "connect"]

_CANCELLING = 3.0
"""Seconds a server gets to end a query that nobody waits for; then the connection is dropped."""

_NEWS = 10
"""Reads of what came without being asked for; a connection with more to say than this is not used again."""

_WRONG = frozenset({ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE, ExecStatus.NONFATAL_ERROR})
_COPY = frozenset({ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH})
_PASSING = ("0800", "53", "57P0", "40001", "40P01", "55P03")
"""Beginnings of the codes of errors that may be gone at the next attempt."""


@final
class Refused(Exception):
    """The server's answer is an error; `code` is its SQLSTATE. The pool makes one of the node's of it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def passing(self) -> bool:
        """Whether it may be gone at the next attempt."""
        return self.code.startswith(_PASSING)


async def connect(settings: Mapping[str, str]) -> Connection:
    """To the first of the addresses that takes us. Raises `ComponentUnavailable`."""
    problem = "no address"
    for attempt in await _attempts(settings):
        try:
            return await _connect(make_conninfo("", **attempt))
        except OperationalError as error:
            problem = str(error).strip()
    raise ComponentUnavailable(f"cannot connect to PostgreSQL: {problem}")


async def _attempts(settings: Mapping[str, str]) -> Sequence[dict[str, str]]:
    """One per address: libpq would look names up itself, and block."""
    hosts, ports = settings.get("host", "").split(","), settings.get("port", "").split(",")
    if "hostaddr" in settings or not any(hosts):
        return [dict(settings)]
    if len(ports) == 1:
        ports *= len(hosts)
    found: list[dict[str, str]] = []
    unknown = ""
    for host, port in zip(hosts, ports, strict=False):
        one = {**settings, "host": host, "port": port}
        if host.startswith(("/", "@")):
            found.append(one)
            continue
        try:
            addresses = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
        except OSError as error:
            unknown = f"cannot find the host {host}: {error.strerror}"
            continue
        found += [{**one, "hostaddr": str(address[4][0])} for address in addresses]
    if not found:
        raise ComponentUnavailable(unknown)
    return found


async def _connect(conninfo: str) -> Connection:
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    try:
        await _poll(pgconn, pgconn.connect_poll)
        pgconn.nonblocking = 1
        connection = Connection(pgconn)
        await connection.settle()
    except BaseException:
        pgconn.finish()
        raise
    return connection


async def _poll(pgconn: PGconn | PGcancelConn, poll: Callable[[], int]) -> None:
    if pgconn.status == ConnStatus.BAD:
        raise OperationalError(pgconn.get_error_message())
    while True:
        match poll():
            case PollingStatus.OK:
                return
            case PollingStatus.READING:
                await trio.lowlevel.wait_readable(pgconn.socket)
            case PollingStatus.WRITING:
                await trio.lowlevel.wait_writable(pgconn.socket)
            case _:
                raise OperationalError(pgconn.get_error_message())


@final
class Connection:
    """For one task at a time."""

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self.since = self.last_used = trio.current_time()

    async def settle(self) -> None:
        """Answers are read in these two styles; a server may be set to others."""
        for name, value in ((b"DateStyle", b"ISO"), (b"IntervalStyle", b"postgres")):
            status = self._pgconn.parameter_status(name)
            if status is not None and status.partition(b",")[0] != value:
                await self.simple(f"SET {name.decode()} = {value.decode()}")

    @property
    def idle(self) -> bool:
        """Whether somebody else may use it: no query under way, no transaction left open."""
        return (
            self._pgconn.status == ConnStatus.OK and self._pgconn.transaction_status == TransactionStatus.IDLE
        )

    def alive(self) -> bool:
        """False when the server has ended the connection meanwhile: it says so, then hangs up."""
        try:
            readable = select.poll()
            readable.register(self._pgconn.socket, select.POLLIN)
            for _ in range(_NEWS):
                if not readable.poll(0):
                    return self.idle
                self._pgconn.consume_input()
        except OperationalError:
            pass
        return False

    def close(self) -> None:
        self._pgconn.finish()

    async def simple(self, sql: str) -> PGresult | None:
        """Statements without parameters, any number of them; the result of the last."""
        return await self._run(lambda: self._pgconn.send_query(sql.encode()))

    async def run(
        self, sql: str, values: Sequence[bytes | None] = (), formats: Sequence[int] | None = None
    ) -> PGresult:
        """One statement. The values are texts, or binary where `formats` has a 1."""
        query = sql.encode()
        return await self._result(
            lambda: self._pgconn.send_query_params(query, values, param_formats=formats)
        )

    async def prepare(self, sql: str) -> Sequence[int]:
        """The types of one statement's parameters; `run_prepared` runs it."""
        query = sql.encode()
        await self._run(lambda: self._pgconn.send_prepare(b"", query))
        described = await self._result(lambda: self._pgconn.send_describe_prepared(b""))
        return [described.param_type(n) for n in range(described.nparams)]

    async def run_prepared(self, values: Sequence[bytes | None]) -> PGresult:
        return await self._result(lambda: self._pgconn.send_query_prepared(b"", values))

    async def notification(self) -> tuple[str, str]:
        """The next one of a channel that is listened to: its channel and what it says."""
        await trio.lowlevel.checkpoint()
        try:
            while (found := self._pgconn.notifies()) is None:
                if self._pgconn.status != ConnStatus.OK:
                    raise OperationalError(self._pgconn.get_error_message())
                await trio.lowlevel.wait_readable(self._pgconn.socket)
                self._pgconn.consume_input()
        except OperationalError as error:
            raise _lost(str(error)) from error
        return found.relname.decode(), found.extra.decode(errors="replace")

    async def _result(self, send: Callable[[], None]) -> PGresult:
        result = await self._run(send)
        if result is None:
            raise _lost("no answer")
        return result

    async def _run(self, send: Callable[[], None]) -> PGresult | None:
        try:
            try:
                send()
                return await self._last_result()
            except trio.Cancelled:
                await self._end_query()
                raise
        except OperationalError as error:
            raise _lost(str(error)) from error

    async def _last_result(self) -> PGresult | None:
        """Reads all of them; raises for the first that is an error."""
        while self._pgconn.flush():
            await trio.lowlevel.wait_writable(self._pgconn.socket)
        last: PGresult | None = None
        wrong: PGresult | None = None
        while (result := await self._next_result()) is not None:
            if result.status in _COPY:
                self._pgconn.finish()
                raise Refused("COPY from and to the client is not offered", "0A000")
            if wrong is None and result.status in _WRONG:
                wrong = result
            last = result
        if wrong is not None:
            raise _error(wrong)
        return last

    async def _next_result(self) -> PGresult | None:
        while self._pgconn.is_busy():
            await trio.lowlevel.wait_readable(self._pgconn.socket)
            self._pgconn.consume_input()
        return self._pgconn.get_result()

    async def _end_query(self) -> None:
        """Asks the server to give up; whether it did shows in `idle`."""
        if self._pgconn.status != ConnStatus.OK:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CANCELLING):
            cancelling = self._pgconn.cancel_conn()
            try:
                cancelling.start()
                await _poll(cancelling, cancelling.poll)
                while self._pgconn.flush():
                    await trio.lowlevel.wait_writable(self._pgconn.socket)
                while await self._next_result() is not None:
                    pass
            except OperationalError:
                self._pgconn.finish()
            finally:
                cancelling.finish()


def _error(result: PGresult) -> Refused | ComponentUnavailable:
    severity, text, code = (
        (result.error_field(field) or b"").decode(errors="replace")
        for field in (DiagnosticField.SEVERITY, DiagnosticField.MESSAGE_PRIMARY, DiagnosticField.SQLSTATE)
    )
    if not code:
        return _lost(result.get_error_message())
    return Refused(f"{severity}: {text} (SQLSTATE {code})", code)


def _lost(why: str) -> ComponentUnavailable:
    return ComponentUnavailable(f"lost the connection to PostgreSQL: {why.strip()}")
