"""`pubsub.mine` keeps the contract of its kind."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import pytest
from attrs import evolve
from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, PublishRequest, PubSub, PubSubFeature
from meshnode.testing.conformance import pubsub

from meshnode_pubsub_mine import Options, driver
from meshnode_pubsub_mine._system import server_at

CONTEXT = DriverContext("component", "app")
OPTIONS = Options(address="localhost:7000", redeliver_interval=timedelta(milliseconds=50))


PROMISES = pubsub.Promises(
    features=frozenset({PubSubFeature.BULK_PUBSUB}),
    keeps_order=True,
    keeps_content_type=True,
    keeps_metadata=True,
)


def open_group(group: str) -> AbstractAsyncContextManager[PubSub]:
    return driver.open(evolve(OPTIONS, consumer_id=group), CONTEXT)


@pytest.mark.parametrize("check", pubsub.checks_for(PROMISES), ids=str)
async def test_conformance(check: pubsub.PubSubCheck) -> None:
    assert await check.run(pubsub.Setup(open_group, PROMISES))


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
            await opened.publish(PublishRequest("topic", b"data"))
        server.answers = True
        await opened.publish(PublishRequest("topic", b"data"))


def test_metadata_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="is no address"):
        Options(address="nowhere")
