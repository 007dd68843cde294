"""The conformance suite of lock stores.

    import pytest
    from meshnode.testing.conformance import lock

    @pytest.mark.parametrize("check", lock.CHECKS, ids=str)
    async def test_conformance(check, open_locks):
        await check.run(lock.Setup(open_locks))

`open` takes nothing and returns an async context manager that yields a store; all of them share one backend.
The first violation raises `ConformanceError`. Time is real: checks of expiry take a little over a second.

May import meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from itertools import count, pairwise
from typing import final

import trio
from attrs import frozen

from meshnode.interfaces import LockStore, UnlockOutcome
from meshnode.testing.conformance._check import RUN, ConformanceError, bare, expect, within

__all__ = ["CHECKS", "ConformanceError", "LockCheck", "Setup"]

_LONG = 60
_names = count()


@final
@frozen
class Setup:
    """A lock store under test. `open` gives a store of its own each time, as two nodes have."""

    open: Callable[[], AbstractAsyncContextManager[LockStore]]
    patience: float = 20


@final
@frozen
class LockCheck:
    """One rule a lock store must keep."""

    name: str
    body: Callable[[Setup], Awaitable[None]]

    def __str__(self) -> str:
        return self.name

    async def run(self, setup: Setup) -> None:
        with bare():
            await self.body(setup)


def _resource() -> str:
    return f"lock||app||r{RUN}-{next(_names)}"


async def _token(setup: Setup, store: LockStore, resource: str, owner: str, seconds: int = _LONG) -> int:
    """Takes the lock, which must be free."""
    with within(setup.patience, "try_lock did not return"):
        token = await store.try_lock(resource, owner, seconds)
    if token is None:
        raise ConformanceError(f"{owner} did not get a lock that nobody holds")
    expect(type(token) is int and token > 0, f"a token is a positive number, not {token!r}")
    return token


async def _refused(setup: Setup, store: LockStore, resource: str, owner: str) -> None:
    with within(setup.patience, "try_lock did not return"):
        token = await store.try_lock(resource, owner, _LONG)
    expect(token is None, f"{owner} got a lock that is held")


async def _unlocks(
    setup: Setup, store: LockStore, resource: str, owner: str, expected: UnlockOutcome
) -> None:
    with within(setup.patience, "unlock did not return"):
        outcome = await store.unlock(resource, owner)
    expect(outcome is expected, f"unlock by {owner}: {expected} was due, not {outcome!r}")


async def it_is_a_lock_store(setup: Setup) -> None:
    async with setup.open() as store:
        expect(isinstance(store, LockStore), "the object lacks a method of LockStore")
        with within(setup.patience, "ping did not return"):
            await store.ping()


async def one_holds_and_nobody_else(setup: Setup) -> None:
    """Not even the holder gets it twice: a lock does not count."""
    async with setup.open() as store, setup.open() as other:
        resource = _resource()
        await _token(setup, store, resource, "one")
        for each in (store, other):
            await _refused(setup, each, resource, "two")
            await _refused(setup, each, resource, "one")


async def what_is_released_can_be_taken(setup: Setup) -> None:
    async with setup.open() as store, setup.open() as other:
        resource = _resource()
        for owner in ("one", "two", "one"):
            await _token(setup, store, resource, owner)
            await _unlocks(setup, other, resource, owner, UnlockOutcome.SUCCESS)
            await _unlocks(setup, store, resource, owner, UnlockOutcome.LOCK_DOES_NOT_EXIST)


async def only_its_holder_releases_a_lock(setup: Setup) -> None:
    async with setup.open() as store:
        resource = _resource()
        await _unlocks(setup, store, resource, "one", UnlockOutcome.LOCK_DOES_NOT_EXIST)
        await _token(setup, store, resource, "one")
        for owner in ("two", "ONE", "on", "one "):
            await _unlocks(setup, store, resource, owner, UnlockOutcome.LOCK_BELONGS_TO_OTHERS)
        await _refused(setup, store, resource, "two")
        await _unlocks(setup, store, resource, "one", UnlockOutcome.SUCCESS)


async def resources_are_apart(setup: Setup) -> None:
    async with setup.open() as store:
        names = [_resource(), _resource(), _resource() + " ü/'\"%_{x}"]
        for name in names:
            await _token(setup, store, name, "one")
            await _token(setup, store, name.upper(), "two")
        for name in names:
            await _unlocks(setup, store, name, "one", UnlockOutcome.SUCCESS)


async def a_lock_is_over_when_its_time_is(setup: Setup) -> None:
    async with setup.open() as store:
        resource, longer = _resource(), _resource()
        first = await _token(setup, store, resource, "one", 1)
        await _token(setup, store, longer, "one")
        await trio.sleep(1.1)  # time itself is under test
        await _unlocks(setup, store, resource, "one", UnlockOutcome.LOCK_DOES_NOT_EXIST)
        second = await _token(setup, store, resource, "two")
        expect(second > first, f"after an expiry the token fell from {first} to {second}")
        await _unlocks(setup, store, resource, "one", UnlockOutcome.LOCK_BELONGS_TO_OTHERS)
        await _refused(setup, store, longer, "two")


async def a_release_does_not_wait_for_the_time(setup: Setup) -> None:
    """And the next holder has the whole of its own."""
    async with setup.open() as store:
        resource = _resource()
        await _token(setup, store, resource, "one", 1)
        await _unlocks(setup, store, resource, "one", UnlockOutcome.SUCCESS)
        await _token(setup, store, resource, "two")
        await trio.sleep(1.1)  # time itself is under test
        await _refused(setup, store, resource, "three")


async def tokens_only_rise(setup: Setup) -> None:
    resource = _resource()
    tokens = []
    for _ in range(3):
        async with setup.open() as store:
            for owner in ("one", "two", "three"):
                tokens.append(await _token(setup, store, resource, owner))
                await _unlocks(setup, store, resource, owner, UnlockOutcome.SUCCESS)
    expect(all(before < after for before, after in pairwise(tokens)), f"tokens do not rise: {tokens}")


async def of_many_at_once_one_gets_it(setup: Setup) -> None:
    async with setup.open() as store, setup.open() as other:
        for _ in range(5):
            resource = _resource()
            tokens: list[int | None] = []

            async def contend(
                owner: str, resource: str = resource, tokens: list[int | None] = tokens
            ) -> None:
                each = store if owner.endswith("0") else other
                tokens.append(await each.try_lock(resource, owner, _LONG))

            with within(setup.patience, "try_lock did not return"):
                async with trio.open_nursery() as nursery:
                    for number in range(10):
                        nursery.start_soon(contend, f"{number}-{number % 2}")
            held = [token for token in tokens if token is not None]
            expect(len(held) == 1, f"{len(held)} of 10 got the lock")


async def cancelled_operations_harm_nobody(setup: Setup) -> None:
    """What was cancelled may have been done or not; others go on."""
    async with setup.open() as store:
        for turn in range(6):
            resource = _resource()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.try_lock, resource, "one", _LONG)
                nursery.start_soon(store.unlock, resource, "two")
                for _ in range(turn):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        resource = _resource()
        await _token(setup, store, resource, "one")
        await _unlocks(setup, store, resource, "one", UnlockOutcome.SUCCESS)


CHECKS: tuple[LockCheck, ...] = tuple(
    LockCheck(body.__name__, body)
    for body in (
        it_is_a_lock_store,
        one_holds_and_nobody_else,
        what_is_released_can_be_taken,
        only_its_holder_releases_a_lock,
        resources_are_apart,
        a_lock_is_over_when_its_time_is,
        a_release_does_not_wait_for_the_time,
        tokens_only_rise,
        of_many_at_once_one_gets_it,
        cancelled_operations_harm_nobody,
    )
)
