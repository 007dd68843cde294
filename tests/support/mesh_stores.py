"""A state store for mesh tests that does what a test tells it to: fail, hang, refuse to open, keep its
options.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import frozen
from meshnode_state_in_memory import MemoryStore

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import Driver, DriverContext, option

__all__ = ["Flaky", "FlakyOptions", "flaky_component"]


@frozen
class FlakyOptions:
    """What a test may see of what the node made of the component."""

    password: str = option("password", "Anything.", default="", secret=True)
    size: int = option("size", "Any number.", default=0)


class Flaky:
    """The driver `state.flaky` and the switches of all its stores."""

    def __init__(self) -> None:
        self.down = False
        self.hanging = False
        self.opening: Exception | float | None = None
        """What opening meets: an error, or seconds that it takes."""
        self.opened: list[FlakyOptions] = []
        self.opens = 0
        self.closed = 0
        self.calls: list[float] = []
        self.written: list[bytes] = []
        """Values as the store got them."""
        self.cancelled = 0
        self.started = trio.Event()
        self.driver: Driver[Any] = Driver("state.flaky", FlakyOptions, self._open)

    @asynccontextmanager
    async def _open(self, options: FlakyOptions, context: DriverContext) -> AsyncIterator[Any]:
        self.opens += 1
        if isinstance(self.opening, Exception):
            raise self.opening
        if self.opening is not None:
            await trio.sleep(self.opening)
        self.opened.append(options)
        try:
            yield _Store(self)
        finally:
            self.closed += 1

    async def reached(self) -> None:
        self.calls.append(trio.current_time())
        self.started.set()
        if self.hanging:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                self.cancelled += 1
                raise
        if self.down:
            raise ComponentUnavailable("the store is down")


class _Store:
    def __init__(self, switches: Flaky) -> None:
        self._inner = MemoryStore(wall=lambda: 0.0, rng=random.Random(1))
        self._switches = switches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def get(self, request: Any) -> Any:
        await self._switches.reached()
        return await self._inner.get(request)

    async def set(self, request: Any) -> None:
        await self._switches.reached()
        self._switches.written.append(request.value)
        await self._inner.set(request)


def flaky_component(*lines: str, name: str = "statestore", metadata: str = "") -> str:
    """YAML of a component of that type; `lines` go into its spec, `metadata` is a flow sequence."""
    extra = "".join(f"\n  {line}" for line in lines)
    given = f"\n  metadata: {metadata}" if metadata else ""
    return f"""---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name}}}
spec:
  type: state.flaky
  version: v1{extra}{given}
"""
