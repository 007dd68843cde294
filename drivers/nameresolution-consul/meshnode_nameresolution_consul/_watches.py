"""Answers that are kept while the agent is asked to say when they change: what `useCache` turns on.

One question per app id stays open at the agent for as long as somebody looks that app id up; each has a task
of the resolver's own nursery. What is not known, or is nobody, is asked for by whoever wants it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, final

import trio
from attrs import define

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode_nameresolution_consul._agent import Agent

__all__ = ["Watches", "open_watches"]

_MOST: Final = 64
"""App ids watched at a time, each with a connection of its own; further ones are looked up each time."""
_IDLE: Final = 300.0
"""Seconds after which an app id that nobody looked up is not watched any longer."""
_ANSWER: Final = 60.0
"""Seconds an answer may take: more than the agent was told to wait."""
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


@final
@define(eq=False)
class _Watch:
    app_id: str
    used: float
    entries: Sequence[Any] | None = None


@final
class Watches:
    """Made by `open_watches`."""

    def __init__(self, agent: Agent, log: logging.Logger, wanted: trio.MemorySendChannel[_Watch]) -> None:
        self._agent = agent
        self._log = log
        self._wanted = wanted
        self._known: dict[str, _Watch] = {}

    def find(self, app_id: str) -> Sequence[Any] | None:
        """What is known of it; None when that is nothing. From now on it is watched."""
        now = trio.current_time()
        watch = self._known.get(app_id)
        if watch is not None:
            watch.used = now
            return watch.entries or None
        if len(self._known) < _MOST:
            watch = self._known[app_id] = _Watch(app_id, now)
            self._wanted.send_nowait(watch)  # there is room for all that may be known
        return None

    async def keep_all(self, wanted: trio.MemoryReceiveChannel[_Watch]) -> None:
        async with trio.open_nursery() as nursery:
            async for watch in wanted:
                nursery.start_soon(self._keep, watch)

    async def _keep(self, watch: _Watch) -> None:
        index, pause = 0, _PAUSE
        try:
            while trio.current_time() - watch.used < _IDLE:
                try:
                    watch.entries, index = await self._changed(watch.app_id, index)
                    pause = _PAUSE
                except ComponentError as error:
                    if pause == _PAUSE:
                        self._log.warning("watching %s: %s", watch.app_id, error)
                    watch.entries, index = None, 0
                    await trio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            del self._known[watch.app_id]

    async def _changed(self, app_id: str, index: int) -> tuple[Sequence[Any], int]:
        with trio.move_on_after(_ANSWER):
            return await self._agent.changed(app_id, index)
        raise ComponentUnavailable("consul does not answer")


@asynccontextmanager
async def open_watches(agent: Agent, log: logging.Logger) -> AsyncIterator[Watches]:
    """An error of the body comes out in a group."""
    send, receive = trio.open_memory_channel[_Watch](_MOST)
    watches = Watches(agent, log, send)
    async with send, receive, trio.open_nursery() as nursery:
        nursery.start_soon(watches.keep_all, receive)
        yield watches
        nursery.cancel_scope.cancel()
