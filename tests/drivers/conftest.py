"""What the driver tests share: redis-server, or a skip that names it."""

from __future__ import annotations

import pytest
from support.redis_servers import find_redis_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_redis_server() is not None:
        return
    for item in items:
        if item.get_closest_marker("redis"):
            item.add_marker(pytest.mark.skip("redis-server is not installed"))
