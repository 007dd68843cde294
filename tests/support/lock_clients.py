"""Clients that lock and unlock, and write down what they did: for histories that the checker reads."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import final

import trio
from support.lock_checker import Answer, Operation

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import LockStore, UnlockOutcome

__all__ = ["Client"]

_RESOURCES = 2
_SECONDS = 1
_ANSWERS = {
    UnlockOutcome.SUCCESS: Answer.RELEASED,
    UnlockOutcome.LOCK_DOES_NOT_EXIST: Answer.ABSENT,
    UnlockOutcome.LOCK_BELONGS_TO_OTHERS: Answer.OTHERS,
}


def _nothing(_operation: Operation) -> None: ...


@final
class Client:
    """One taker of locks. `begun` hears of an operation before it is sent, `ended` of its answer."""

    def __init__(
        self,
        name: str,
        store: LockStore,
        ended: Callable[[Operation], None],
        begun: Callable[[Operation], None] = _nothing,
    ) -> None:
        self._name = name
        self._store = store
        self._rng = random.Random(name)
        self._begun = begun
        self._ended = ended

    async def work(self, stop: trio.Event) -> None:
        """Until `stop`; what is under way is finished."""
        number = 0
        while not stop.is_set():
            number += 1
            resource, owner = f"r{self._rng.randrange(_RESOURCES)}", f"{self._name}:{number}"
            answer = await self.lock(resource, owner)
            with trio.move_on_after(self._rng.uniform(0, 0.02)):  # the work that is done under the lock
                await stop.wait()
            # Some forget; some release what they may have got.
            chance = {Answer.GRANTED: 0.9, Answer.UNKNOWN: 0.5}.get(answer, 0.0)
            if self._rng.random() < chance:
                await self.unlock(resource, owner)

    async def lock(self, resource: str, owner: str, seconds: int = _SECONDS) -> Answer:
        began, token, answer = time.monotonic(), None, Answer.UNKNOWN
        self._begun(Operation(resource, owner, began, seconds=seconds))
        try:
            token = await self._store.try_lock(resource, owner, seconds)
            answer = Answer.REFUSED if token is None else Answer.GRANTED
        except ComponentUnavailable:
            pass  # it may have been done
        ended = time.monotonic()
        self._ended(Operation(resource, owner, began, ended, answer, seconds, token or 0))
        return answer

    async def unlock(self, resource: str, owner: str) -> Answer:
        began, answer = time.monotonic(), Answer.UNKNOWN
        self._begun(Operation(resource, owner, began))
        try:
            answer = _ANSWERS[await self._store.unlock(resource, owner)]
        except ComponentUnavailable:
            pass
        self._ended(Operation(resource, owner, began, time.monotonic(), answer))
        return answer
