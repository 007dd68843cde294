"""pubsub.sqlite: the conformance suite on real files, and what is its own."""

from __future__ import annotations

from datetime import timedelta

import pytest
from meshnode_pubsub_sqlite import Options, driver

from meshnode.interfaces import DriverContext, PubSubFeature
from meshnode.testing.conformance import pubsub

PROMISES = pubsub.Promises(
    features=frozenset({PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB}),
    keeps_order=True,
    order_key=True,
    keeps_content_type=True,
    keeps_metadata=True,
)
QUICK = {"redeliver_interval": timedelta(milliseconds=50), "lease_duration": timedelta(minutes=5)}


class Wall:
    """A wall clock that tests move."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        self.now += 0.001
        return self.now

    async def pass_time(self, seconds):
        self.now += seconds


@pytest.mark.parametrize("check", pubsub.checks_for(PROMISES), ids=str)
async def test_conformance(check, tmp_path):
    wall = Wall()
    path = str(tmp_path / "top%20ics #1.db")

    def open_group(group):
        return driver.open(
            Options(connection_string=path, consumer_id=group, **QUICK),
            DriverContext("pubsub", "app"),
        )

    assert await check.run(pubsub.Setup(open_group, PROMISES))
