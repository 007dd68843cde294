"""`bindings.mine` keeps the contract of its kind."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from itertools import count

import pytest
from attrs import evolve
from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import BindingRequest, DriverContext
from meshnode.testing.conformance import bindings

from meshnode_bindings_mine import Binding, Options, driver
from meshnode_bindings_mine._system import server_at

CONTEXT = DriverContext("component", "app")
OPTIONS = Options(address="localhost:7000", redeliver_interval=timedelta(milliseconds=50))


CREATE = BindingRequest("create", b"data")
PORTS = count(8000)


def fresh() -> Options:
    """A queue of a test's own: what is put there nobody else may take."""
    return evolve(OPTIONS, address=f"localhost:{next(PORTS)}")


@pytest.mark.parametrize("check", bindings.INPUT_CHECKS, ids=str)
async def test_input(check: bindings.BindingCheck[bindings.InputSetup]) -> None:
    options = fresh()

    def open_binding() -> AbstractAsyncContextManager[Binding]:
        return driver.open(options, CONTEXT)

    async def fire(data: bytes) -> None:
        await server_at(options.address).put(data, {})

    assert await check.run(bindings.InputSetup(open_binding, fire))


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_output(check: bindings.BindingCheck[bindings.OutputSetup]) -> None:
    options = fresh()

    def open_binding() -> AbstractAsyncContextManager[Binding]:
        return driver.open(options, CONTEXT)

    assert await check.run(bindings.OutputSetup(open_binding, CREATE))


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
            await opened.invoke(CREATE)
        server.answers = True
        assert (await opened.invoke(CREATE)).metadata == {"number": "1"}


def test_metadata_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="is no address"):
        Options(address="nowhere")
