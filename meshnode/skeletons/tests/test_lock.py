"""`lock.mine` keeps the contract of its kind."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
from attrs import evolve
from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, LockStore
from meshnode.testing.conformance import lock

from meshnode_lock_mine import Options, driver
from meshnode_lock_mine._system import server_at

CONTEXT = DriverContext("component", "app")
OPTIONS = Options(address="localhost:7000")


def open_locks() -> AbstractAsyncContextManager[LockStore]:
    return driver.open(OPTIONS, CONTEXT)


@pytest.mark.parametrize("check", lock.CHECKS, ids=str)
async def test_conformance(check: lock.LockCheck) -> None:
    await check.run(lock.Setup(open_locks))


async def test_a_server_that_is_away() -> None:
    server = server_at("localhost:7001")
    options = evolve(OPTIONS, address="localhost:7001")
    server.answers = False
    with pytest.raises(ComponentUnavailable, match="does not answer"):
        async with driver.open(options, CONTEXT):
            pytest.fail("it was opened")
    server.answers = True
    async with driver.open(options, CONTEXT) as opened:
        await opened.ping()
        server.answers = False
        with pytest.raises(ComponentUnavailable):
            await opened.try_lock("resource", "owner", 60)
        server.answers = True
        assert await opened.try_lock("resource", "owner", 60) is not None


def test_metadata_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="is no address"):
        Options(address="nowhere")
