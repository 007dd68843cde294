"""A lane: one connection to one server, everything that is waiting for it, and everything that is under
way on it.

Runs on the asyncio side. `run` writes: it takes all waiting commands, sends them in one piece and goes on
without waiting for the answers. Its `_read` task gives the answers, which come in order, to the commands
under way. Since somebody is always reading, a server that goes away is noticed at once, and the next
command connects anew: there is no pool whose connections could have gone stale.

What was under way when a connection broke is sent again if it only reads; a write is not, since it may
have been executed.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, final

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from meshnode_redis._command import TROUBLE, WAIT, Command, Lost, Waiter
from meshnode_redis._script import fallback

__all__ = ["Connector", "Lane", "Pace"]

_MAX_BATCH = 256
_REDIRECTIONS = (MovedError, AskError, TryAgainError)
# redis-py raises these like a broken connection, but they are answers: the connection is fine.
_ANSWERS = (ResponseError, AuthenticationError, AuthorizationError, BusyLoadingError)


class Connector(Protocol):
    """Where a lane's connections come from."""

    address: str

    async def open(self) -> AbstractConnection: ...

    async def close(self, connection: AbstractConnection) -> None: ...


@final
class Pace:
    """The times of a lane, in seconds: until a connection stands, and until an answer comes; None is for
    ever.
    """

    def __init__(
        self, *, retries: int, first: float, longest: float, connect: float | None, timeout: float | None
    ) -> None:
        self.retries = max(retries, 0)
        self._first = max(first, 0.0)
        self._longest = max(longest, 0.0)
        self.connect = connect
        self.timeout = timeout

    def with_blocking(self, longest: float) -> Pace:
        """For commands that the server may leave unanswered for so long on purpose."""
        return Pace(
            retries=self.retries,
            first=self._first,
            longest=self._longest,
            connect=self.connect,
            timeout=None if self.timeout is None else self.timeout + longest,
        )

    def pause(self, attempt: int, rng: random.Random) -> float:
        return min(self._first * 2.0**attempt, self._longest) * rng.uniform(0.5, 1.0)


@final
class Lane:
    """`push` may be called from trio's side and before `run` is started.

    `greet` is awaited on each new connection before it carries commands.
    """

    def __init__(
        self,
        connector: Connector,
        pace: Pace,
        rng: random.Random,
        *,
        redirect: Callable[[Command], None] | None = None,
        unreachable: Callable[[], None] | None = None,
        blocking: bool = False,
        greet: Callable[[AbstractConnection], Awaitable[None]] | None = None,
    ) -> None:
        self._connector = connector
        self._pace = pace
        self._rng = rng
        self._redirect = redirect
        self._unreachable = unreachable
        self._blocking = blocking
        self._greet = greet
        self._replicas = 0
        self._waiting: deque[Command] = deque()
        self._under_way: deque[Command] = deque()
        self._wake = asyncio.Event()
        self._progress = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        """Commands waiting or under way."""
        return len(self._waiting) + len(self._under_way)

    def push(self, command: Command) -> None:
        if self._closed:
            command.answer(Lost("the store is closed", sent=False))
            return
        self._waiting.append(command)
        if not self._wake.is_set():
            self._wake.set()

    def tidy(self) -> int:
        """Drops what is waiting for callers that are gone; how many are left.

        For when there seem to be too many.
        """
        waiting, self._waiting = self._waiting, deque()
        for command in waiting:
            if command.abandoned:
                command.answer(Lost("nobody waits for it", sent=False))
            else:
                self._waiting.append(command)
        return len(self)

    def withdraw(self, waiter: Waiter) -> bool:
        """Takes back a waiter's commands that have not been sent; whether there were any."""
        kept = deque([command for command in self._waiting if command.waiter is not waiter])
        found = len(kept) < len(self._waiting)
        self._waiting = kept
        return found

    async def run(self) -> None:
        """Serves until it is cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._waiting:
                    connection = await self._connect()
                    if connection is not None:
                        await self._converse(connection)
        finally:
            self._closed = True
            self._fail(self._under_way, "the store is closed", sent=True)
            self._fail(self._waiting, "the store is closed", sent=False)

    async def _connect(self) -> AbstractConnection | None:
        """A connection, or None after the last attempt; then everything that was waiting has been told."""
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(self._pace.connect):
                    return await self._open()
            except TROUBLE as error:
                if attempt >= self._pace.retries:
                    waiting, self._waiting = self._waiting, deque()
                    self._fail(waiting, str(error) or "no connection in time", sent=False)
                    if self._unreachable is not None:
                        self._unreachable()
                    return None
                await asyncio.sleep(self._pace.pause(attempt, self._rng))
                attempt += 1

    async def _open(self) -> AbstractConnection:
        connection = await self._connector.open()
        try:
            if self._blocking:
                self._replicas = await _count_replicas(connection)
            if self._greet is not None:
                await self._greet(connection)
        except BaseException:
            await self._connector.close(connection)
            raise
        return connection

    async def _converse(self, connection: AbstractConnection) -> None:
        """Sends what is waiting for as long as the connection lives, and ends it."""
        reader = asyncio.create_task(self._read(connection))
        reader.add_done_callback(lambda _: self._wake.set())
        trouble = ""
        try:
            while not reader.done():
                batch = self._take()
                if batch:
                    self._start_watch(reader)
                    # hiredis packs a command in 1.5 µs; redis-py's asyncio side would take 20 in Python.
                    packed = [pack_command(command.arguments) for command in batch]  # type: ignore[arg-type]
                    await connection.send_packed_command(packed, check_health=False)
                    continue
                await self._wake.wait()
                self._wake.clear()
        except TROUBLE as error:
            trouble = str(error)
        finally:
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None
            reader.cancel()
            (ended,) = await asyncio.gather(reader, return_exceptions=True)
            await self._connector.close(connection)
        self._sort_out(trouble or (str(ended) if isinstance(ended, Exception) else "no answer in time"))

    def _take(self) -> list[Command]:
        """Moves what is waiting to what is under way, without those whose callers are gone."""
        batch: list[Command] = []
        while self._waiting and len(batch) < _MAX_BATCH:
            command = self._waiting.popleft()
            if command.abandoned:
                command.answer(Lost("nobody waits for it", sent=False))
                continue
            if command.arguments is WAIT:
                if not self._replicas:
                    command.answer(0)
                    continue
                command.arguments = ("WAIT", self._replicas, 1000)
            batch.append(command)
        self._under_way.extend(batch)
        return batch

    async def _read(self, connection: AbstractConnection) -> None:
        """Gives answers to what is under way; ends with the error that ends the connection."""
        under_way = self._under_way
        loop = asyncio.get_running_loop()
        while True:
            try:
                reply = await connection.read_response(disconnect_on_error=False)
            except _ANSWERS as error:
                reply = error
            if not under_way:
                raise RedisError("an answer that nothing had asked for")
            self._progress = loop.time()
            command = under_way.popleft()
            if isinstance(reply, Exception):
                self._answer_error(command, reply)
            else:
                command.answer(reply)

    def _answer_error(self, command: Command, error: Exception) -> None:
        """Neither an unknown script nor a redirection has executed anything: those go out once more."""
        if isinstance(error, NoScriptError):
            command.arguments = fallback(command.arguments)
            self.push(command)
        elif self._redirect is not None and isinstance(error, _REDIRECTIONS):
            self._redirect(command)
        else:
            if self._unreachable is not None and isinstance(error, ClusterDownError):
                self._unreachable()
            command.answer(error)

    def _start_watch(self, reader: asyncio.Task[None]) -> None:
        """While commands are under way, a timer looks whether answers keep coming.

        One timer, not one per command.
        """
        if self._watch is None and self._pace.timeout is not None:
            loop = asyncio.get_running_loop()
            self._progress = loop.time()
            self._watch = loop.call_later(self._pace.timeout, self._look, reader, loop)

    def _look(self, reader: asyncio.Task[None], loop: asyncio.AbstractEventLoop) -> None:
        self._watch = None
        if not self._under_way or self._pace.timeout is None:
            return
        left = self._progress + self._pace.timeout - loop.time()
        if left <= 0:
            reader.cancel()
        else:
            self._watch = loop.call_later(left, self._look, reader, loop)

    def _sort_out(self, reason: str) -> None:
        """The connection is gone: repeats what may be repeated, and fails the rest of what was under way."""
        again: list[Command] = []
        lost: list[Command] = []
        for command in self._under_way:
            repeat = command.repeatable and command.attempts < self._pace.retries and not command.abandoned
            command.attempts += 1
            (again if repeat else lost).append(command)
        self._under_way.clear()
        self._waiting.extendleft(reversed(again))
        self._fail(lost, reason, sent=True)
        if self._waiting:
            self._wake.set()

    def _fail(self, commands: Any, reason: str, *, sent: bool) -> None:
        for command in commands:
            command.answer(Lost(reason, sent=sent))


async def _count_replicas(connection: AbstractConnection) -> int:
    await connection.send_command("INFO", "replication", check_health=False)
    for line in (await connection.read_response()).splitlines():
        name, _, value = line.partition(b":")
        if name == b"connected_slaves":
            return int(value)
    return 0
