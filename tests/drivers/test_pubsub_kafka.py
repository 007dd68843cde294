"""pubsub.kafka on a real broker: the conformance suite, order, positions, and what daprd writes."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio_asyncio
from meshnode_kafka import Options, pubsub
from support.kafka_servers import shared_broker

from meshnode.interfaces import DriverContext, PublishRequest, PubSubFeature
from meshnode.testing.conformance import pubsub as conformance

CONTEXT = DriverContext("pubsub", "app")
QUICK = {
    "consume_retry_interval": "50ms",
    "heartbeat_interval": timedelta(milliseconds=200),
    "session_timeout": timedelta(seconds=2),
}
PROMISES = conformance.Promises(
    features=frozenset({PubSubFeature.BULK_PUBSUB}),
    side_by_side=False,
    keeps_order=True,
    order_key=True,
    keeps_metadata=True,
    refused=lambda topic: PublishRequest(topic, b"x" * 2_000_000),
)


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    yield from shared_broker(tmp_path_factory.mktemp("kafka"))


def options(broker, **more):
    return Options(**{"brokers": broker.address, "auth_type": "none", **more})


@pytest.mark.parametrize("check", conformance.checks_for(PROMISES), ids=str)
async def test_conformance(check, broker):
    def open_group(group):
        return pubsub.open(options(broker, consumer_group=group, **QUICK), CONTEXT)

    async with trio_asyncio.open_loop():
        assert await check.run(conformance.Setup(open_group, PROMISES))
