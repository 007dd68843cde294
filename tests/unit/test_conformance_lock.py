"""The conformance suite of lock stores itself: a sound one passes, broken ones are caught."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import count

import pytest
import trio

from meshnode.interfaces import UnlockOutcome
from meshnode.testing.conformance import lock


class Sound:
    """A sound lock store, for subclasses to break. All share one backend, as the suite asks."""

    def __init__(self):
        self.held = {}
        self.tokens = count(1)

    async def ping(self):
        await trio.lowlevel.checkpoint()

    async def try_lock(self, resource, owner, seconds):
        await trio.lowlevel.checkpoint()
        if self.holder(resource) is not None:
            return None
        self.held[resource] = owner, trio.current_time() + seconds
        return next(self.tokens)

    async def unlock(self, resource, owner):
        await trio.lowlevel.checkpoint()
        holder = self.holder(resource)
        if holder is None:
            return UnlockOutcome.LOCK_DOES_NOT_EXIST
        if holder != owner:
            return UnlockOutcome.LOCK_BELONGS_TO_OTHERS
        del self.held[resource]
        return UnlockOutcome.SUCCESS

    def holder(self, resource):
        owner, ends = self.held.get(resource, ("", 0))
        return owner if trio.current_time() < ends else None


class LooksThenTakes(Sound):
    async def try_lock(self, resource, owner, seconds):
        free = self.holder(resource) is None
        await trio.lowlevel.checkpoint()
        if not free:
            return None
        self.held[resource] = owner, trio.current_time() + seconds
        return next(self.tokens)


class LetsItsHolderIn(Sound):
    async def try_lock(self, resource, owner, seconds):
        if self.holder(resource) == owner:
            return next(self.tokens)
        return await super().try_lock(resource, owner, seconds)


class NeverExpires(Sound):
    def holder(self, resource):
        return self.held.get(resource, (None, 0))[0]


class ExpiresEverything(Sound):
    def holder(self, resource):
        if any(ends <= trio.current_time() for _, ends in self.held.values()):
            self.held.clear()
        return super().holder(resource)


class ReleasesForAnybody(Sound):
    async def unlock(self, resource, owner):
        holder = self.holder(resource)
        return await super().unlock(resource, owner if holder is None else holder)


class ForgetsWhoHasIt(Sound):
    async def unlock(self, resource, owner):
        if self.holder(resource) not in (None, owner):
            return UnlockOutcome.LOCK_DOES_NOT_EXIST
        return await super().unlock(resource, owner)


class HasOneLock(Sound):
    async def try_lock(self, resource, owner, seconds):
        return await super().try_lock("the one", owner, seconds)


class FoldsNames(Sound):
    async def try_lock(self, resource, owner, seconds):
        return await super().try_lock(resource.lower(), owner, seconds)

    async def unlock(self, resource, owner):
        return await super().unlock(resource.lower(), owner)


class GivesTheSameToken(Sound):
    async def try_lock(self, resource, owner, seconds):
        return None if await super().try_lock(resource, owner, seconds) is None else 1


class CountsDown(Sound):
    def __init__(self):
        super().__init__()
        self.tokens = count(1_000_000, -1)


class GivesText(Sound):
    async def try_lock(self, resource, owner, seconds):
        token = await super().try_lock(resource, owner, seconds)
        return None if token is None else str(token)


class HasNoPing:
    try_lock, unlock = Sound.try_lock, Sound.unlock


class Hangs(Sound):
    async def unlock(self, resource, owner):
        await trio.sleep_forever()


BROKEN = [
    (LooksThenTakes, "of_many_at_once_one_gets_it"),
    (LetsItsHolderIn, "one_holds_and_nobody_else"),
    (NeverExpires, "a_lock_is_over_when_its_time_is"),
    (ExpiresEverything, "a_lock_is_over_when_its_time_is"),
    (ReleasesForAnybody, "only_its_holder_releases_a_lock"),
    (ForgetsWhoHasIt, "only_its_holder_releases_a_lock"),
    (HasOneLock, "resources_are_apart"),
    (FoldsNames, "resources_are_apart"),
    (GivesTheSameToken, "tokens_only_rise"),
    (CountsDown, "tokens_only_rise"),
    (GivesText, "one_holds_and_nobody_else"),
    (HasNoPing, "it_is_a_lock_store"),
    (Hangs, "what_is_released_can_be_taken"),
]


def setup(store):
    @asynccontextmanager
    async def opened():
        yield store

    return lock.Setup(opened)


@pytest.mark.parametrize("check", lock.CHECKS, ids=str)
async def test_a_sound_store_passes(check, autojump_clock):
    await check.run(setup(Sound()))


@pytest.mark.parametrize(("broken", "name"), BROKEN)
async def test_a_broken_store_is_caught(broken, name, autojump_clock):
    (check,) = (one for one in lock.CHECKS if one.name == name)
    with pytest.raises(lock.ConformanceError):
        await check.run(setup(broken()))


def test_every_check_that_can_be_broken_is():
    left = {"a_release_does_not_wait_for_the_time", "cancelled_operations_harm_nobody"}
    assert {one.name for one in lock.CHECKS} - {name for _, name in BROKEN} == left
