"""The node's one asyncio loop, for drivers that wrap an asyncio library. A node whose drivers speak trio
never pays for asyncio: this module imports it only where it is needed.

trio-asyncio finds its loop by a context variable, which tasks take over from those that start them. A node
that has such a driver from its start opens the loop around everything. In one that has not, tasks live that
began before there was a loop; for a component that comes later there is `LateLoop`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, final

import trio

__all__ = ["LateLoop", "asyncio_loop", "hold_loop"]

_log = logging.getLogger("meshnode.asyncio")

_LAST_PASSES_SECONDS = 1.0


@asynccontextmanager
async def asyncio_loop(needed: bool) -> AsyncIterator[None]:
    """The node's one asyncio loop, where a driver needs it; a node whose drivers speak trio never pays for
    asyncio.

    What a library's own task fails with, and nobody asks for, is a line in the log: by itself trio-asyncio
    would end the loop over it, and with it every component and the node.
    """
    if not needed:
        yield
        return
    import trio_asyncio

    async with trio_asyncio.open_loop() as loop:  # type: ignore[attr-defined]
        loop.set_exception_handler(_left_behind)
        try:
            yield
        finally:
            # What has been closed gives its socket back in the loop's next passes.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_PASSES_SECONDS):
                for _ in range(2):
                    await loop.synchronize()


def _left_behind(loop: Any, context: dict[str, Any]) -> None:
    error = context.get("exception")
    _log.warning("asyncio: %s: %r", context.get("message", "an error that nobody asked for"), error)


@final
class LateLoop:
    """A running loop, for tasks that do not have it."""

    def __init__(self, current: ContextVar[Any]) -> None:
        self._current = current
        self._loop = current.get()

    def enter(self) -> None:
        """Give it to this task and to those that it starts."""
        self._current.set(self._loop)

    def wrap(self, instance: Any) -> Any:
        """The same object for callers without the loop."""
        return _Wrapped(instance, self._in_loop)

    def _in_loop(self, method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        @wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            before = self._current.set(self._loop)
            try:
                return await method(*args, **kwargs)
            finally:
                self._current.reset(before)

        return call


@final
class _Wrapped:
    """Has what the object has, as attributes of its own: that is where Protocols look."""

    def __init__(self, instance: Any, in_loop: Callable[[Any], Any]) -> None:
        for name in dir(instance):
            if not name.startswith("_"):
                value = getattr(instance, name)
                setattr(self, name, in_loop(value) if iscoroutinefunction(value) else value)


async def hold_loop(*, task_status: trio.TaskStatus[LateLoop]) -> None:
    """Run a loop until cancelled."""
    import trio_asyncio

    async with asyncio_loop(True):
        task_status.started(LateLoop(trio_asyncio.current_loop))  # type: ignore[attr-defined]
        await trio.sleep_forever()
