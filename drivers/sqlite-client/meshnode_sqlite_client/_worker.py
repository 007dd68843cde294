"""One connection, its thread, and the jobs waiting for it.

Callers put jobs into a bounded queue and sleep. The worker's only task takes everything that is waiting,
crosses into a thread once, runs the jobs one after another inside one transaction, commits once, and
wakes the callers with their answers. Nobody is woken before the commit. A caller that is cancelled takes
its job out of the queue if it has not been started, and otherwise leaves it to finish unseen.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, final

import trio
from outcome import Error, Outcome, Value

from meshnode.errors import ComponentUnavailable, MeshError, Status
from meshnode_sqlite_client._database import Database, connect, translate
from meshnode_sqlite_client._location import locate

__all__ = ["Worker", "open_workers"]

T = TypeVar("T")
Action = Callable[[sqlite3.Connection], Any]
Writes = bool | Callable[[sqlite3.Connection], bool]

_MAX_WAITING = 10_000
_MAX_BATCH = 512
_STEPS_BETWEEN_CLOCK_CHECKS = 20_000
_NORMAL = 1


@final
class _Job:
    __slots__ = ("action", "durable", "outcome", "task", "writes")

    def __init__(self, action: Action, writes: Writes, durable: bool, task: trio.lowlevel.Task) -> None:
        self.action = action
        self.writes = writes
        self.durable = durable
        self.task: trio.lowlevel.Task | None = task
        self.outcome: Outcome[Any] | None = None

    def will_write(self, connection: sqlite3.Connection) -> bool:
        return self.writes if isinstance(self.writes, bool) else self.writes(connection)

    def finish(self, outcome: Outcome[Any]) -> None:
        if self.task is not None:
            task, self.task = self.task, None
            trio.lowlevel.reschedule(task, outcome)


@final
class Worker:
    """Runs jobs on one connection, a batch at a time."""

    def __init__(self, connection: sqlite3.Connection, database: Database) -> None:
        self._connection = connection
        self._database = database
        self._waiting: deque[_Job] = deque()
        self._current: list[_Job] = []
        self._wake = trio.Event()
        self._limiter = trio.CapacityLimiter(1)
        self._closed = False
        self._deadline = 0.0
        self._usual = self._synchronous = -1  # not known yet
        connection.set_progress_handler(self._is_late, _STEPS_BETWEEN_CLOCK_CHECKS)

    async def call(
        self, action: Callable[[sqlite3.Connection], T], *, writes: Writes, durable: bool = True
    ) -> T:
        """Runs the action in the worker's thread and transaction. It must not keep the connection.

        `writes` may be a function that looks: where nothing in a batch writes there is no transaction, and
        nobody else's writing is waited for. (What it saw may have changed when the action runs; an action
        that is to change something looks whether it is in a transaction.)

        What is not `durable` need not survive a power cut, unless a later durable write does; it is spared
        the `fsync`. It survives the end of the process like everything else.
        """
        if self._closed:
            raise self._gone()
        if len(self._waiting) >= _MAX_WAITING:
            message = f"too many operations wait for the {self._database}"
            raise self._database.failure(message, status=Status.RESOURCE_EXHAUSTED)
        job = _Job(action, writes, durable, trio.lowlevel.current_task())
        self._waiting.append(job)
        self._wake.set()

        def abandon(_raise_cancel: Any) -> trio.lowlevel.Abort:
            job.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        result: T = await trio.lowlevel.wait_task_rescheduled(abandon)
        return result

    async def run(self, scope: trio.CancelScope) -> None:
        """Serves jobs until the scope is cancelled; those that are left then fail as unavailable."""
        try:
            with scope:
                while True:
                    await self._wake.wait()
                    self._current = self._take()
                    if not self._waiting:
                        self._wake = trio.Event()
                    if self._current:
                        await trio.to_thread.run_sync(self._run_batch, self._current, limiter=self._limiter)
                    for job in self._current:
                        assert job.outcome is not None
                        job.finish(job.outcome)
        finally:
            self._closed = True
            for job in (*self._current, *self._waiting):
                job.finish(Error(self._gone()))

    def _take(self) -> list[_Job]:
        batch: list[_Job] = []
        while self._waiting and len(batch) < _MAX_BATCH:
            job = self._waiting.popleft()
            if job.task is not None:
                batch.append(job)
        return batch

    def _run_batch(self, batch: list[_Job]) -> None:
        """Blocks. Gives every job its outcome."""
        connection = self._connection
        try:
            self._restart_clock()
            self._database.check(connection)
            if any(job.will_write(connection) for job in batch):
                self._synchronise(any(job.durable for job in batch))
                connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                self._run_job(job)
            if connection.in_transaction:
                self._restart_clock()
                connection.execute("COMMIT")
        except (sqlite3.Error, MeshError) as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = translate(error, self._database) if isinstance(error, sqlite3.Error) else error
            for job in batch:
                job.outcome = Error(failure)

    def _synchronise(self, durable: bool) -> None:
        """Sets whether the next commit waits for the disk; with a write-ahead log both are safe."""
        execute = self._connection.execute
        if self._usual < 0:
            (self._usual,) = execute("PRAGMA synchronous").fetchone()
            self._synchronous = self._usual
        wanted = self._usual if durable or self._database.disable_wal else min(self._usual, _NORMAL)
        if wanted != self._synchronous:
            execute(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted

    def _run_job(self, job: _Job) -> None:
        """An error of the job's own stays with it; one that ended the transaction is everybody's and is
        raised.
        """
        was_open = self._connection.in_transaction
        self._restart_clock()
        try:
            job.outcome = Value(job.action(self._connection))
        except sqlite3.Error as error:
            if was_open and not self._connection.in_transaction:
                raise
            job.outcome = Error(translate(error, self._database))
        except MeshError as error:
            job.outcome = Error(error)
        except Exception as error:  # a mistake in one job must not take its neighbours down
            job.outcome = Error(self._database.failure(f"{type(error).__name__}: {error}"))

    def _restart_clock(self) -> None:
        self._deadline = time.monotonic() + self._database.timeout.total_seconds()

    def _is_late(self) -> bool:
        """SQLite asks this every so many steps; True interrupts the statement."""
        return time.monotonic() > self._deadline

    def _gone(self) -> ComponentUnavailable:
        return ComponentUnavailable(f"{self._database} is closed")


def _open_connections(
    database: Database, prepare: Callable[[sqlite3.Connection], None], readers: int
) -> list[sqlite3.Connection]:
    """The writer and, where readers need not wait for it, as many more as asked for. Blocks."""
    location = locate(database.connection_string)
    connections: list[sqlite3.Connection] = []
    try:
        connections.append(connect(database))
        if not location.read_only:
            prepare(connections[0])
        if not (location.in_memory or location.read_only or database.disable_wal):
            connections += [connect(database) for _ in range(readers)]
    except BaseException:
        for connection in connections:
            connection.close()
        raise
    return connections


@asynccontextmanager
async def open_workers(
    database: Database, prepare: Callable[[sqlite3.Connection], None], *, readers: int = 0
) -> AsyncIterator[Sequence[Worker]]:
    """Workers that run until the block is left: the writer, then the readers if there can be any.

    `prepare` makes the tables. The workers do not hear of a cancellation from outside: what the block has to
    write while it is being cancelled is written.
    """
    try:
        connections = await trio.to_thread.run_sync(_open_connections, database, prepare, readers)
    except sqlite3.Error as error:
        raise translate(error, database) from error
    workers = [Worker(connection, database) for connection in connections]
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope(shield=True) for _ in workers]
            for worker, scope in zip(workers, scopes, strict=True):
                nursery.start_soon(worker.run, scope)
            try:
                yield workers
            except BaseException as raised:  # out of the nursery it would come in a group
                failure = raised
            for scope in scopes:
                scope.cancel()
        if failure is not None:
            raise failure
    finally:
        # Closing the last connection moves the log into the database; that is worth waiting for, within
        # reason.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            for connection in reversed(connections):
                await trio.to_thread.run_sync(connection.close)
