"""`state.mine` keeps the contract of its kind."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
from attrs import evolve
from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, GetRequest, SetRequest, StateStore
from meshnode.testing.conformance import state

from meshnode_state_mine import Options, driver
from meshnode_state_mine._system import server_at

CONTEXT = DriverContext("component", "app")
OPTIONS = Options(address="localhost:7000")


def open_store() -> AbstractAsyncContextManager[StateStore]:
    return driver.open(OPTIONS, CONTEXT)


@pytest.mark.parametrize("check", state.CHECKS, ids=str)
async def test_conformance(check: state.StateCheck) -> None:
    if not await check.run(open_store):
        pytest.skip("the store does not have this feature")


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
            await opened.get(GetRequest("key"))
        server.answers = True
        await opened.set(SetRequest("key", b"value"))
        found = await opened.get(GetRequest("key"))
        assert found is not None
        assert found.data == b"value"


def test_metadata_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="is no address"):
        Options(address="nowhere")
