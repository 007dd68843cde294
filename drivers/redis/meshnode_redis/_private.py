"""A lane for one user alone, whose commands may block at the server.

`run` belongs to the asyncio side, `ask` to trio's.
"""

from __future__ import annotations

import random
from typing import Any, final

import trio
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from meshnode_redis._command import send
from meshnode_redis._lane import Connector, Lane, Pace
from meshnode_redis._script import Arguments

__all__ = ["Private"]

_SETTLING = 2.0


@final
class Private:
    """`shared` is the lane that others use to the same server: it carries the word that ends a wait."""

    def __init__(self, connector: Connector, pace: Pace, rng: random.Random, shared: Lane) -> None:
        self._lane = Lane(connector, pace, rng, greet=self._learn_id)
        self._shared = shared
        self._id = 0

    async def run(self) -> None:
        """Serves until it is cancelled."""
        await self._lane.run()

    async def _learn_id(self, connection: AbstractConnection) -> None:
        try:
            await connection.send_command("CLIENT", "ID", check_health=False)
            self._id = int(await connection.read_response(disconnect_on_error=False))
        except ResponseError:  # forbidden to this user: a wait then ends when the server ends it
            self._id = 0

    async def ask(self, arguments: Arguments) -> Any:
        """The answer, or the error that is one. For one task at a time.

        Cancelled, it first sees the command to its end, which it asks the server to bring about: a command
        that went on waiting there would take messages for a consumer that is gone.
        """
        waiter = send([(self._lane, arguments)])
        try:
            (reply,) = await waiter.wait()
        except trio.Cancelled:
            if not self._lane.withdraw(waiter):
                if self._id:
                    send([(self._shared, ("CLIENT", "UNBLOCK", self._id))])
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _SETTLING):
                    await waiter.wait()
            raise
        return reply
