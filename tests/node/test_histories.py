"""Recorded histories of some seconds each: nodes, applications and brokers are killed, paused and cut off
while messages flow, and no promise is broken. `python -m histories` plays many more.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from histories.outbox import outbox_plan, run_outbox
from histories.plan import plan_of
from histories.report import line
from histories.run import Result, run
from support.redis_servers import find_redis_server

SECONDS = 3.0


async def played(broker: str, seed: int, folder: Path) -> Result:
    result = await run(plan_of(broker, seed, SECONDS), folder)
    print(line(result))
    return result


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_sqlite_keeps_what_it_promises(seed: int, tmp_path: Path) -> None:
    result = await played("sqlite", seed, tmp_path)
    assert result.plan.ordered
    assert result.violations == []
    assert result.verdict.acknowledged > 0
    assert sum(result.faults.values()) == len(result.plan.faults) > 0


@pytest.mark.redis
@pytest.mark.parametrize("seed", [5, 6])
async def test_redis_keeps_what_it_promises(seed: int, tmp_path: Path) -> None:
    if find_redis_server() is None:
        pytest.skip("redis-server is not installed")
    result = await played("redis", seed, tmp_path)
    assert result.violations == []
    assert result.verdict.acknowledged > 0
    assert sum(result.faults.values()) == len(result.plan.faults) > 0


async def test_an_outbox_publishes_what_committed_and_nothing_else(tmp_path: Path) -> None:
    result = await run_outbox(outbox_plan(1, 2.0), tmp_path)
    print(line(result))
    assert result.violations == []
    assert result.verdict.acknowledged > 0
    assert result.verdict.received >= result.verdict.acknowledged
    assert result.faults["kill"] >= len(result.plan.kills)
