"""The connection to a component's process.

A process that comes back is a new one, which has to be initialised before it is asked for anything. So each
connection is a channel of its own that dials once: `Init` is the first call on it, and only then do others
see it. While there is none they fail with `ComponentUnavailable` at once.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, final

import trio

from meshnode.errors import ComponentUnavailable, MeshError, Status
from meshnode.interfaces import DriverContext
from meshnode.pluggable.names import INSTANCE
from meshnode.transport import Backoff, Channel, KeepAlive, Limits, open_channel

__all__ = ["LIMITS", "Connection", "Initialise", "OneDial", "Session", "kept"]

LIMITS: Final = Limits(message_size=(1 << 32) - 1)
"""The process is on this machine and its operator's own: what may be stored may be read back."""

_BACKOFF: Final = Backoff(initial=0.1, maximum=2.0, connect=5.0)
_KEEPALIVE: Final = KeepAlive(interval=300.0)
_GRACE_SECONDS: Final = 5.0

S = TypeVar("S")
Initialise = Callable[["Session"], Awaitable[None]]


@final
class OneDial:
    """Dials a Unix socket, and never again: what comes after is another process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dialled = False

    async def __call__(self) -> trio.abc.Stream:
        if self._dialled:
            raise OSError(f"the connection to {self._path} is lost")
        self._dialled = True
        return await trio.open_unix_socket(self._path)


@final
class Session:
    """One connection: calls that carry the component's name."""

    def __init__(self, channel: Channel, component: str) -> None:
        self.channel = channel
        self.metadata = {INSTANCE: component.encode("ascii", "backslashreplace").decode()}
        self._streams: set[trio.CancelScope] = set()
        self._component = component

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """Around a stream: cancelled, and `ComponentUnavailable`, when the process takes no new calls."""
        with trio.CancelScope() as scope:
            self._streams.add(scope)
            try:
                yield
            finally:
                self._streams.discard(scope)
        if scope.cancelled_caught:
            message = f"the process of component {self._component} is going away"
            raise ComponentUnavailable(message, status=Status.UNAVAILABLE)

    def retire(self) -> None:
        for scope in self._streams:
            scope.cancel()

    def stub(self, cls: Callable[..., S]) -> S:
        return cls(self.channel, metadata=self.metadata)


@final
class Connection:
    """Carries calls inside `kept`."""

    def __init__(self, path: Path, context: DriverContext) -> None:
        self._path = path
        self._component = context.component
        self._log = context.log
        self._rng = context.rng
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """Raises `ComponentUnavailable` while the process is away."""
        if self._session is None:
            message = f"the process of component {self._component} at {self._path} is away"
            raise ComponentUnavailable(message, status=Status.UNAVAILABLE)
        return self._session

    def stub(self, cls: Callable[..., S]) -> S:
        return self.session.stub(cls)

    async def keep(self, initialise: Initialise, *, task_status: trio.TaskStatus[None]) -> None:
        """Connect, initialise, and do both again whenever the connection is lost, until cancelled.

        Raises what the first attempt fails with; `started` when it has succeeded.
        """
        await self._hold(initialise, task_status.started)
        failures = 0
        while True:
            await trio.sleep(_BACKOFF.delay(max(1, failures), self._rng))
            try:
                await self._hold(initialise, self._back)
                failures = 0
            except MeshError as error:
                failures += 1
                level = logging.WARNING if failures == 1 else logging.DEBUG
                self._log.log(level, "component %s is not back: %s", self._component, error)

    async def _hold(self, initialise: Initialise, ready: Callable[[], Any]) -> None:
        """From connecting to the loss of the connection."""
        dial = OneDial(self._path)
        async with open_channel(dial, limits=LIMITS, keepalive=_KEEPALIVE, backoff=_BACKOFF) as channel:
            session = Session(channel, self._component)
            await initialise(session)
            self._session = session
            ready()
            try:
                await channel.wait_not_ready()
            finally:
                self._session = None
                session.retire()
            self._log.warning(
                "component %s: the connection to its process at %s is lost", self._component, self._path
            )
            with trio.move_on_after(_GRACE_SECONDS):
                await channel.wait_unconnected()  # a process that ends in peace answers what it was asked

    def _back(self) -> None:
        self._log.info("component %s: its process at %s is back", self._component, self._path)


@asynccontextmanager
async def kept(connection: Connection, initialise: Initialise) -> AsyncIterator[None]:
    """The connection is there and initialised; raises `MeshError` where it cannot be."""
    failure: BaseException | None = None
    # What is raised in a nursery comes out in a group: the opener's errors, and the body's, are its own.
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(connection.keep, initialise)
            yield
        except BaseException as caught:
            failure = caught
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
