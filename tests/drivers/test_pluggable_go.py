"""A component written with Dapr's components SDK for Go: the conformance suites through its socket."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from support.components import driver_at, go_component, options_of, socket_folder

from meshnode.interfaces import BindingRequest, DriverContext, Feature
from meshnode.testing.conformance import bindings, pubsub, secretstores, state

STATE_CHECKS = [check for check in state.CHECKS if Feature.QUERY_API not in check.needs]
BROKER = pubsub.Promises(groups=False, keeps_order=True, keeps_content_type=True, keeps_metadata=True)
SECRETS = {"database": {"user": "ann", "password": "topsecret"}, "token": {"token": "opensesame"}}


@pytest.fixture(scope="module")
def folder():
    with socket_folder() as path, go_component(path):
        yield path


@asynccontextmanager
async def opened(folder, type_, component="c", **metadata):
    driver = await driver_at(folder, type_)
    async with driver.open(options_of(driver, metadata), DriverContext(component, "app")) as instance:
        yield instance


@pytest.mark.parametrize("check", STATE_CHECKS, ids=str)
async def test_state_conformance(check, folder):
    assert await check.run(lambda: opened(folder, "state.gomem"))


@pytest.mark.parametrize("check", pubsub.checks_for(BROKER), ids=str)
async def test_pubsub_conformance(check, folder):
    setup = pubsub.Setup(lambda group: opened(folder, "pubsub.gomem", group), BROKER)
    assert await check.run(setup)


def both_ways(folder):
    return opened(folder, "bindings.gomem")


@pytest.mark.parametrize("check", bindings.INPUT_CHECKS, ids=str)
async def test_input_conformance(check, folder):
    async with opened(folder, "bindings.gomem", "source", direction="output") as source:

        async def fire(data):
            await source.invoke(BindingRequest("create", data))

        assert await check.run(bindings.InputSetup(lambda: both_ways(folder), fire))


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_output_conformance(check, folder):
    example = BindingRequest("echo", b"hello", {"a": "b"})
    assert await check.run(bindings.OutputSetup(lambda: both_ways(folder), example))


@pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
async def test_secrets_conformance(check, folder):
    setup = secretstores.Setup(lambda: opened(folder, "secretstores.gosecrets"), SECRETS)
    assert await check.run(setup)
