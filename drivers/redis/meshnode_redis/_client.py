"""What the component types share on trio's side: the lane of a key, and errors in the node's words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, final

import trio
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)

from meshnode.errors import ComponentError, ComponentUnavailable, Status
from meshnode_redis._command import PING, TROUBLE, Lost, on_asyncio, run
from meshnode_redis._lane import Connector, Lane
from meshnode_redis._options import ConnectionOptions
from meshnode_redis._private import Private
from meshnode_redis._script import Arguments
from meshnode_redis._topology import Topology

__all__ = ["Client", "unavailable"]

_MAX_WAITING = 10_000
_PASSING = (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
"""Answers that may be different at the next attempt."""


def unavailable(options: ConnectionOptions, error: BaseException) -> ComponentUnavailable:
    return ComponentUnavailable(f"redis at {options.host}: {str(error) or type(error).__name__}")


@final
class Client:
    """`refusal` is the kind's own error, for what the server refuses."""

    def __init__(self, options: ConnectionOptions, topology: Topology, refusal: type[ComponentError]) -> None:
        self._options = options
        self._topology = topology
        self._refusal = refusal

    def slot(self, key: str) -> int:
        """Keys of one script must agree in this."""
        return self._topology.slot(key)

    def lane(self, key: str, *, blocking: bool = False) -> Lane:
        """Where the key's commands go; raises when no server is known for it, or too many are waiting."""
        try:
            return self._admitted(self._topology.lane(key, blocking=blocking))
        except TROUBLE as error:
            raise unavailable(self._options, error) from error

    def lanes(self) -> list[Lane]:
        """One for each server that holds data."""
        return [self._admitted(lane) for lane in self._topology.lanes()]

    def connectors(self) -> list[Connector]:
        """One for each server that holds data, for the asyncio side."""
        return self._topology.connectors()

    def error(self, error: Exception) -> ComponentError:
        """What an answer that is an error means to the caller."""
        if isinstance(error, Lost):
            tail = "; the command may have been executed" if error.sent else ""
            return ComponentUnavailable(f"redis at {self._options.host}: {error}{tail}")
        if isinstance(error, _PASSING):
            return unavailable(self._options, error)
        return self._refusal(f"redis at {self._options.host}: {error}")

    async def call(self, key: str, arguments: Arguments, *, repeatable: bool = False) -> Any:
        """The answer to one command; raises when it is an error."""
        (reply,) = await run([(self.lane(key), arguments)], repeatable=repeatable)
        if isinstance(reply, Exception):
            raise self.error(reply)
        return reply

    @asynccontextmanager
    async def private(self, key: str, longest: float) -> AsyncIterator[Private]:
        """A connection of one's own to the key's server, for commands that block for so many seconds at
        most. An error in the block comes out in a group.
        """
        try:
            private = self._topology.private(key, longest)
        except TROUBLE as error:
            raise unavailable(self._options, error) from error
        async with trio.open_nursery() as nursery:
            # Shielded: `ask` needs it while it is being cancelled. It ends with the block.
            scope = trio.CancelScope(shield=True)
            nursery.start_soon(_run_in, scope, private)
            try:
                yield private
            finally:
                scope.cancel()

    async def ping(self) -> None:
        calls = [(self._admitted(lane), PING) for lane in self._topology.lanes()]
        for reply in await run(calls, repeatable=True):
            if isinstance(reply, Exception):
                raise self.error(reply)

    def _admitted(self, lane: Lane) -> Lane:
        if len(lane) >= _MAX_WAITING and lane.tidy() >= _MAX_WAITING:
            raise self._refusal("too many operations wait for redis", status=Status.RESOURCE_EXHAUSTED)
        return lane


async def _run_in(scope: trio.CancelScope, private: Private) -> None:
    with scope:
        await on_asyncio(private.run)
