"""`configuration.mine` keeps the contract of its kind."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
from attrs import evolve
from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import ConfigurationStore, DriverContext
from meshnode.testing.conformance import configuration

from meshnode_configuration_mine import Options, driver
from meshnode_configuration_mine._system import Item, server_at

CONTEXT = DriverContext("component", "app")
OPTIONS = Options(address="localhost:7000")


def open_store() -> AbstractAsyncContextManager[ConfigurationStore]:
    return driver.open(OPTIONS, CONTEXT)


async def put(key: str, value: str, version: str) -> None:
    await server_at(OPTIONS.address).put(key, Item(value, version))


async def remove(key: str) -> None:
    await server_at(OPTIONS.address).remove(key)


@pytest.mark.parametrize("check", configuration.CHECKS, ids=str)
async def test_conformance(check: configuration.ConfigurationCheck) -> None:
    await check.run(configuration.Setup(open_store, put, remove))


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
            await opened.get(["key"], {})
        server.answers = True
        assert await opened.get(["key"], {}) == {}


def test_metadata_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="is no address"):
        Options(address="nowhere")
