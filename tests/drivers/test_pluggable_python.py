"""Drivers of this repository, served by `meshnode.pluggable` in another process: the conformance suites
through the socket.
"""

from __future__ import annotations

import json

import pytest
from support.components import open_component, python_component, socket_folder

from meshnode.interfaces import BindingRequest, PubSubFeature
from meshnode.testing.conformance import bindings, pubsub, secretstores, state

SECRETS = {"database": {"database": "ann"}, "token": {"token": "opensesame"}}
FEATURES = frozenset({PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB})
BROKER = pubsub.Promises(
    features=FEATURES, keeps_order=True, order_key=True, keeps_content_type=True, keeps_metadata=True
)
SERVED = (
    "meshnode_state_in_memory:driver",
    "support.served_drivers:broker",
    "support.served_drivers:binding",
    "meshnode_secretstores_local:file_driver",
)


@pytest.fixture(scope="module")
def folder():
    with socket_folder() as path, python_component(path, "py", *SERVED):
        yield path


@pytest.mark.parametrize("check", state.CHECKS, ids=str)
async def test_state_conformance(check, folder):
    assert await check.run(lambda: open_component(folder, "state.py"))


@pytest.mark.parametrize("check", pubsub.checks_for(BROKER), ids=str)
async def test_pubsub_conformance(check, folder):
    def open_group(group):
        return open_component(folder, "pubsub.py", group, consumerID=group, redeliverInterval="20ms")

    assert await check.run(pubsub.Setup(open_group, BROKER))


@pytest.mark.parametrize("check", bindings.INPUT_CHECKS, ids=str)
async def test_input_conformance(check, folder):
    loop = check.name  # of its own: what one check leaves behind must not come to another
    async with open_component(folder, "bindings.py", "source", direction="output", loop=loop) as source:

        async def fire(data):
            await source.invoke(BindingRequest("create", data))

        def open_binding():
            return open_component(folder, "bindings.py", loop=loop)

        assert await check.run(bindings.InputSetup(open_binding, fire))


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_output_conformance(check, folder):
    example = BindingRequest("echo", b"hello", {"a": "b"})
    assert await check.run(bindings.OutputSetup(lambda: open_component(folder, "bindings.py"), example))


@pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
async def test_secrets_conformance(check, folder, tmp_path):
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({name: next(iter(values.values())) for name, values in SECRETS.items()}))

    def open_store():
        return open_component(folder, "secretstores.py", str(tmp_path), secretsFile=str(file))

    assert await check.run(secretstores.Setup(open_store, SECRETS))
