"""state.in-memory: the conformance suite on the virtual clock, and what is its own."""

from __future__ import annotations

import random

import pytest
import trio
from meshnode_state_in_memory import MemoryStore, Options, driver

from meshnode.interfaces import DriverContext, GetRequest, SetRequest
from meshnode.testing.conformance import state


def open_store():
    return driver.open(Options(), DriverContext("statestore", "app", wall=lambda: 1_800_000_000.0))


@pytest.mark.parametrize("check", state.CHECKS, ids=str)
async def test_conformance(check, autojump_clock):
    assert await check.run(open_store)


async def test_suite_runs_without_pytest(autojump_clock):
    assert await state.run_state_conformance(open_store) == [check.name for check in state.CHECKS]


async def test_time_to_live_is_reported_in_wall_time(autojump_clock):
    async with open_store() as store:
        await store.set(SetRequest("k", b"v", ttl=60))
        result = await store.get(GetRequest("k"))
        assert result is not None
        assert result.metadata == {"ttlExpireTime": "2027-01-15T08:01:00Z"}


async def test_sweep_gives_memory_back(autojump_clock):
    async with open_store() as store:
        for number in range(3000):
            await store.set(SetRequest(f"k{number}", b"v", ttl=1 + number % 5))
        await store.set(SetRequest("stays", b"v"))
        assert len(store) == 3001
        await trio.sleep(7)
        assert len(store) == 1
        await store.set(SetRequest("late", b"v", ttl=1))
        await trio.sleep(3)
        assert len(store) == 1


async def test_overwriting_with_a_time_to_live_does_not_pile_up(autojump_clock):
    async with open_store() as store:
        for _ in range(20_000):
            await store.set(SetRequest("k", b"v", ttl=3600))
        assert store.pending_expiries < 2_000
        await trio.sleep(3601)
        assert await store.get(GetRequest("k")) is None


async def test_etags_do_not_recur_in_another_run():
    etags = set()
    for seed in range(3):
        store = MemoryStore(wall=lambda: 0.0, rng=random.Random(seed))
        await store.set(SetRequest("k", b"v"))
        result = await store.get(GetRequest("k"))
        assert result is not None
        etags.add(result.etag)
    assert len(etags) == 3
