"""A consumer's dealings with its group, but for taking: joining, acknowledging, keeping, giving back."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, final

import trio

from meshnode.errors import ComponentError, ComponentUnavailable, Status
from meshnode.interfaces import DriverContext
from meshnode_redis._client import Client
from meshnode_redis._script import Arguments
from meshnode_redis.pubsub import _scripts
from meshnode_redis.pubsub._options import Options

__all__ = ["Group", "backoff"]

_LAST_WORD = 2.0
_FAREWELL = 5.0
_DEAD_AFTER = 3600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


def backoff(attempt: int, context: DriverContext) -> float:
    """Seconds to wait before the next attempt to reach a server that is gone."""
    return min(_FIRST_PAUSE * 2.0 ** min(attempt, 10), _LONGEST_PAUSE) * context.rng.uniform(0.5, 1.0)


@final
class Group:
    """The consumer group of one topic, as one subscription sees it."""

    def __init__(self, client: Client, options: Options, context: DriverContext, topic: str) -> None:
        self._client = client
        self._options = options
        self._context = context
        self.topic = topic
        self.name = options.consumer_id or context.app_id
        self._prefix = f"meshnode-{context.app_id}-"
        self.consumer = f"{self._prefix}{context.rng.getrandbits(64):016x}"

    async def join(self) -> None:
        """Makes the group if there is none."""
        idle = max(_DEAD_AFTER, 10 * self._options.due_after)
        await self._call(_scripts.join(self.topic, self.name, self._prefix, idle))

    async def acknowledge(self, entry: bytes) -> None:
        """Insists: an acknowledgement survives a lost connection, so nothing is processed again for it."""
        arguments = ("XACK", self.topic, self.name, entry)
        # A cancellation takes back what was being delivered. This has been.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_WORD):
            await self._insist(arguments)
            return
        await self._insist(arguments)

    async def _insist(self, arguments: Arguments) -> None:
        attempt = 0
        while True:
            try:
                await self._call(arguments)
                return
            except ComponentError as error:
                passing = isinstance(error, ComponentUnavailable) or error.code is Status.RESOURCE_EXHAUSTED
                if not passing:
                    self._log(logging.WARNING, error)
                    return
            await trio.sleep(backoff(attempt, self._context))
            attempt += 1

    async def put_off(self, entry: bytes) -> None:
        """It failed, and is due again after the redelivery interval, for whichever consumer looks first."""
        options = self._options
        age = options.due_after - options.redelivery if options.redelivers else 0.0
        await self._try(_scripts.put_off(self.topic, self.name, self.consumer, age, entry))

    async def keep(self, entries: Collection[bytes]) -> None:
        """A sign of life: they stay ours."""
        if entries:
            await self._try(_scripts.keep(self.topic, self.name, self.consumer, entries))

    async def give_back(self, kept: Collection[bytes]) -> None:
        """Everything that was taken, but for `kept`, is anybody's from now on."""
        with trio.move_on_after(_FAREWELL):
            await self._try(_scripts.give_back(self.topic, self.name, self.consumer, kept))

    async def leave(self) -> None:
        """Gives back everything and ends the consumer. What cannot be given back is taken from it, by its
        age.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL):
            await self.give_back(())

    async def _try(self, arguments: Arguments) -> None:
        """Where nothing is lost when it fails, only late."""
        try:
            await self._call(arguments)
        except ComponentError as error:
            self._log(logging.DEBUG, error)

    def _log(self, level: int, error: ComponentError) -> None:
        self._context.log.log(level, "%s: topic %s: %s", self._context.component, self.topic, error.message)

    async def _call(self, arguments: Arguments) -> Any:
        # All of these may be repeated: done twice is as done once.
        return await self._client.call(self.topic, arguments, repeatable=True)
