"""What the driver tests share: redis-server and PostgreSQL, or a skip that names them; and what asyncio
leaves behind stays here.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgres_servers import PostgresServer, find_postgres, postgres_server
from support.redis_servers import find_redis_server

HERE = Path(__file__).parent

# asyncio closes a transport's socket in a later pass of its loop, one over TLS after the peer's word. Tests
# end their loops before that, whatever the library (aiokafka, nats-py, redis-py, aiormq), and when the
# collector finds the socket is chance: often in the middle of another test.
LEFT_BY_ASYNCIO = pytest.mark.filterwarnings(
    "ignore:(unclosed (transport )?<|loop is closed):ResourceWarning"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    redis = find_redis_server() is not None
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(LEFT_BY_ASYNCIO)
        if not redis and item.get_closest_marker("redis"):
            item.add_marker(pytest.mark.skip("redis-server is not installed"))


@pytest.fixture(autouse=True, scope="module")
def nothing_left_for_others() -> Iterator[None]:
    """Tests of other folders, where such a warning is an error, do not pay for these."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def shared_postgres() -> Iterator[PostgresServer]:
    """One for all tests of a module that leave it as it is."""
    if find_postgres() is None:
        pytest.skip("postgres is not installed")
    with postgres_server() as server:
        yield server


@pytest.fixture
def own_postgres(shared_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """The same server for a test that stops or kills it."""
    yield shared_postgres
    if not shared_postgres.running:
        shared_postgres.start()
