"""pubsub.redis on real servers: the conformance suite in every topology, and Dapr's layout."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager

import pytest
import trio_asyncio
from meshnode_redis.pubsub import Options, driver
from support.redis_servers import redis_cluster, redis_server, sentinel_group

from meshnode.interfaces import DriverContext, PubSubFeature
from meshnode.testing.conformance import pubsub

pytestmark = pytest.mark.redis

CONTEXT = DriverContext("pubsub", "app")
PROMISES = pubsub.Promises(
    features=frozenset({PubSubFeature.BULK_PUBSUB}),
    keeps_order=True,
    keeps_metadata=True,
)


def plain(folder, stack):
    server = stack.enter_context(redis_server(folder))
    return {"host": server.address}


def with_user(folder, stack):
    """Without the commands that an administrator would keep to himself."""
    server = stack.enter_context(redis_server(folder, password="wrong-for-this-user"))
    server.command("ACL", "SETUSER", "mesh", "on", ">s3cret", "~*", "+@all", "-@dangerous")
    return {"host": server.address, "username": "mesh", "password": "s3cret", "db": 3}


def with_sentinel(folder, stack):
    _, _, sentinel = stack.enter_context(sentinel_group(folder, password="s3cret"))
    return {
        "host": sentinel.address,
        "failover": True,
        "sentinel_master_name": "mymaster",
        "password": "s3cret",
    }


def with_cluster(folder, stack):
    servers = stack.enter_context(redis_cluster(folder))
    return {"host": ",".join(server.address for server in servers), "type": "cluster"}


TOPOLOGIES = (plain, with_user, with_sentinel, with_cluster)


@pytest.fixture(scope="module", params=TOPOLOGIES, ids=lambda topology: topology.__name__)
def where(request, tmp_path_factory):
    with ExitStack() as stack:
        yield request.param(tmp_path_factory.mktemp("redis"), stack)


@asynccontextmanager
async def looped(open_group, group):
    async with open_group(group) as broker:
        yield broker


@pytest.mark.parametrize("check", pubsub.checks_for(PROMISES), ids=str)
async def test_conformance(check, where):
    """As a node does it: one trio-asyncio loop around all drivers."""

    def open_group(group):
        options = Options(**where, consumer_id=group, redeliver_interval="200ms")
        return driver.open(options, CONTEXT)

    async with trio_asyncio.open_loop():
        assert await check.run(pubsub.Setup(open_group, PROMISES))
