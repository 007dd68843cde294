"""The driver opened for each component that nodes have initialised, by the component's name.

A node that connects again initialises again. With the same metadata that is the instance there is: others,
and what it is doing, are left alone. With other metadata it is closed first: its streams end, its calls may
finish.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import trio

from meshnode.components import RESERVED_METADATA
from meshnode.errors import ComponentUnavailable, MeshError, Status
from meshnode.interfaces import Driver, DriverContext
from meshnode.registry import load_options

__all__ = ["Instance", "Instances"]

_CLOSING_SECONDS = 5.0

_log = logging.getLogger("meshnode.pluggable")


@final
class Instance:
    """One component, open. `resumed` is set unless a node has asked for a pause in its deliveries."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        self.properties = dict(properties)
        self.served: Any = None
        self.resumed = trio.Event()
        self.resumed.set()
        self.close = trio.Event()
        self.closed = trio.Event()
        self._users = 0
        self._idle = trio.Event()
        self._streams: set[trio.CancelScope] = set()

    def pause(self) -> None:
        if self.resumed.is_set():
            self.resumed = trio.Event()

    async def until_resumed(self) -> None:
        while not self.resumed.is_set():
            await self.resumed.wait()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Around a call: the instance is not closed under it, for a while."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Around a call that lasts as long as its caller likes; ends with UNAVAILABLE where the instance is
        closed.
        """
        with trio.CancelScope() as scope:
            self._streams.add(scope)
            try:
                yield
            finally:
                self._streams.discard(scope)
        if scope.cancelled_caught:
            message = "the component is closed, or initialised with other metadata"
            raise ComponentUnavailable(message, status=Status.UNAVAILABLE)

    async def until_idle(self) -> None:
        for scope in self._streams:
            scope.cancel()
        while self._users:
            self._idle = trio.Event()
            await self._idle.wait()


@final
class Instances:
    """`start` starts the task that holds an instance, as `Nursery.start` does."""

    def __init__(self, driver: Driver[Any], start: Callable[..., Awaitable[Any]]) -> None:
        self._driver = driver
        self._start = start
        self._open: dict[str, Instance] = {}
        self._opening: dict[str, trio.Lock] = {}

    def get(self, name: str) -> Instance:
        """Raises FAILED_PRECONDITION before `init`."""
        if name not in self._open:
            raise MeshError(f'component "{name}" is not initialised', status=Status.FAILED_PRECONDITION)
        return self._open[name]

    async def init(self, name: str, properties: Mapping[str, str]) -> Any:
        """What the driver's `open` yields. Raises what it raises; `ConfigError` for the metadata."""
        async with self._opening.setdefault(name, trio.Lock()):
            current = self._open.get(name)
            if current is not None and current.properties == dict(properties):
                return current.served
            options = load_options(
                self._driver.metadata, list(properties.items()), reserved=RESERVED_METADATA
            )
            if current is not None:
                current.close.set()
                await current.closed.wait()
            instance = Instance(properties)
            instance.served = await self._start(self._hold, name, instance, options)
            self._open[name] = instance
            _log.info("component %s is initialised as %s", name, self._driver.type)
            return instance.served

    async def close(self) -> None:
        """All of them; returns when they have closed."""
        held = list(self._open.values())
        for instance in held:
            instance.close.set()
        for instance in held:
            await instance.closed.wait()

    async def _hold(
        self, name: str, instance: Instance, options: Any, *, task_status: trio.TaskStatus[Any]
    ) -> None:
        log = logging.getLogger(f"meshnode.driver.{self._driver.type}")
        opened = False
        try:
            async with self._driver.open(options, DriverContext(name, app_id=name, log=log)) as served:
                opened = True
                task_status.started(served)
                await instance.close.wait()
                with trio.move_on_after(_CLOSING_SECONDS):
                    await instance.until_idle()
        except Exception as error:
            if not opened:
                raise
            _log.error("component %s failed while running: %s", name, error, exc_info=error)
        finally:
            if self._open.get(name) is instance:
                del self._open[name]
            instance.closed.set()
