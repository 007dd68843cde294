"""pubsub.in-memory: the conformance suite, and what is its own."""

from __future__ import annotations

from datetime import timedelta

import pytest
from meshnode_pubsub_in_memory import Broker, Options

from meshnode.interfaces import DriverContext, PubSubFeature
from meshnode.testing.conformance import pubsub


class Passing:
    """A wall clock that the checks move."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def wall(self):
        return self.now

    async def __call__(self, seconds):
        self.now += seconds


PROMISES = pubsub.Promises(
    features=frozenset({PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB}),
    keeps_order=True,
    order_key=True,
    keeps_content_type=True,
    keeps_metadata=True,
)


@pytest.fixture
def setup():
    driver, clock = Broker().driver, Passing()
    context = DriverContext("pubsub", "app", wall=clock.wall)

    def open_group(group):
        options = Options(consumer_id=group, redeliver_interval=timedelta(milliseconds=20))
        return driver.open(options, context)

    return pubsub.Setup(open_group, PROMISES, pass_time=clock)


@pytest.mark.parametrize("check", pubsub.checks_for(PROMISES), ids=str)
async def test_conformance(check, setup, autojump_clock):
    assert await check.run(setup)
