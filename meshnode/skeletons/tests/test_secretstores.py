"""`secretstores.mine` keeps the contract of its kind."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
from attrs import evolve
from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, SecretStore
from meshnode.testing.conformance import secretstores

from meshnode_secretstores_mine import Options, driver
from meshnode_secretstores_mine._system import server_at

CONTEXT = DriverContext("component", "app")
OPTIONS = Options(address="localhost:7000")


SECRETS = {"database": {"user": "me", "password": "xyzzy"}, "token": {"token": "plugh"}}


def open_store() -> AbstractAsyncContextManager[SecretStore]:
    server_at(OPTIONS.address).secrets.update(SECRETS)
    return driver.open(OPTIONS, CONTEXT)


@pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
async def test_conformance(check: secretstores.SecretCheck) -> None:
    assert await check.run(secretstores.Setup(open_store, SECRETS))


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
            await opened.get("token", {})
        server.answers = True
        with pytest.raises(KeyError):
            await opened.get("token", {})


def test_metadata_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="is no address"):
        Options(address="nowhere")
