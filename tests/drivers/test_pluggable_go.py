"""A component written with Dapr's components SDK for Go: the conformance suites through its socket."""

from __future__ import annotations

import pytest
from support.components import go_component, open_component, socket_folder

from meshnode.interfaces import BindingRequest, Feature
from meshnode.testing.conformance import bindings, pubsub, secretstores, state

STATE_CHECKS = [check for check in state.CHECKS if Feature.QUERY_API not in check.needs]
BROKER = pubsub.Promises(groups=False, keeps_order=True, keeps_content_type=True, keeps_metadata=True)
SECRETS = {"database": {"user": "ann", "password": "topsecret"}, "token": {"token": "opensesame"}}


@pytest.fixture(scope="module")
def folder():
    with socket_folder() as path, go_component(path):
        yield path


@pytest.mark.parametrize("check", STATE_CHECKS, ids=str)
async def test_state_conformance(check, folder):
    assert await check.run(lambda: open_component(folder, "state.gomem"))


@pytest.mark.parametrize("check", pubsub.checks_for(BROKER), ids=str)
async def test_pubsub_conformance(check, folder):
    setup = pubsub.Setup(lambda group: open_component(folder, "pubsub.gomem", group), BROKER)
    assert await check.run(setup)


def both_ways(folder, loop=""):
    return open_component(folder, "bindings.gomem", loop=loop)


@pytest.mark.parametrize("check", bindings.INPUT_CHECKS, ids=str)
async def test_input_conformance(check, folder):
    loop = check.name  # of its own: what one check leaves behind must not come to another
    async with open_component(folder, "bindings.gomem", "source", direction="output", loop=loop) as source:

        async def fire(data):
            await source.invoke(BindingRequest("create", data))

        assert await check.run(bindings.InputSetup(lambda: both_ways(folder, loop), fire))


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_output_conformance(check, folder):
    example = BindingRequest("echo", b"hello", {"a": "b"})
    assert await check.run(bindings.OutputSetup(lambda: both_ways(folder), example))


@pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
async def test_secrets_conformance(check, folder):
    setup = secretstores.Setup(lambda: open_component(folder, "secretstores.gosecrets"), SECRETS)
    assert await check.run(setup)
