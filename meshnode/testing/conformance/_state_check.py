"""What a state check is made of, and the few helpers that all checks share."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import final

from attrs import frozen

from meshnode.interfaces import DeleteRequest, Feature, GetRequest, GetResult, SetRequest, StateStore
from meshnode.testing.conformance._check import RUN, ConformanceError, expect, refused

__all__ = ["ConformanceError", "OpenStore", "Probe", "StateCheck", "collect", "expect", "refused"]

OpenStore = Callable[[], AbstractAsyncContextManager[StateStore]]

_probes = itertools.count()


@final
class Probe:
    """One check's view of the store: keys of its own, and shorthands."""

    def __init__(self, store: StateStore, open_store: OpenStore) -> None:
        self.store = store
        self.open_store = open_store
        # In braces, so that a cluster keeps the keys of one check together.
        self._prefix = f"conformance||{{{RUN}-{next(_probes)}}}"

    @property
    def prefix(self) -> str:
        return self._prefix

    def key(self, name: str) -> str:
        return self._prefix + name

    async def get(self, name: str) -> GetResult | None:
        return await self.store.get(GetRequest(self.key(name)))

    async def found(self, name: str) -> GetResult:
        result = await self.get(name)
        if result is None:
            raise ConformanceError(f"{name} should be there and is not")
        return result

    async def value(self, name: str) -> bytes | None:
        result = await self.get(name)
        return None if result is None else result.data

    async def save(self, name: str, value: bytes) -> None:
        await self.store.set(SetRequest(self.key(name), value))

    async def remove(self, name: str) -> None:
        await self.store.delete(DeleteRequest(self.key(name)))


@final
@frozen
class StateCheck:
    """One rule a state store must keep; `needs` are the features without which it does not apply."""

    name: str
    body: Callable[[Probe], Awaitable[None]]
    needs: frozenset[Feature] = frozenset()

    def __str__(self) -> str:
        return self.name

    async def run(self, open_store: OpenStore) -> bool:
        """Opens the store and runs the check; False when the store lacks a feature the check needs."""
        async with open_store() as store:
            if not self.needs <= store.features:
                return False
            await self.body(Probe(store, open_store))
            return True


def collect(
    *bodies: Callable[[Probe], Awaitable[None]], needs: tuple[Feature, ...] = ()
) -> tuple[StateCheck, ...]:
    """Checks named after their functions."""
    return tuple(StateCheck(body.__name__, body, frozenset(needs)) for body in bodies)
