"""Recorded histories of some seconds each: nodes, applications and brokers are killed, paused and cut off
while messages flow, and no promise is broken. `python -m histories` plays many more.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from histories.daemons import Daemon
from histories.faults import Kind
from histories.links import Link
from histories.outbox import outbox_plan, run_outbox
from histories.plan import plan_of
from histories.report import line
from histories.run import Result, run
from support.processes import wait_until
from support.redis_servers import find_redis_server, free_port

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


# --- that the faults are what they say


@asynccontextmanager
async def echo_behind_a_link() -> AsyncIterator[Link]:
    async def echo(stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        link = Link(free_port(), listener.socket.getsockname()[1])
        await nursery.start(link.run)
        yield link
        nursery.cancel_scope.cancel()


async def connected(link: Link) -> trio.SocketStream:
    """A connection that has carried something."""
    stream = await trio.open_tcp_stream("127.0.0.1", link.port)
    await stream.send_all(b"hello")
    assert await stream.receive_some() == b"hello"
    return stream


async def is_reset(stream: trio.SocketStream) -> bool:
    try:
        await stream.send_all(b"lost")
        await stream.receive_some()
    except trio.BrokenResourceError:
        return True
    return False


async def test_what_a_link_holds_arrives_in_the_end() -> None:
    async with echo_behind_a_link() as link, await connected(link) as stream:
        link.cut(Kind.HOLD)
        await stream.send_all(b"waits")
        with trio.move_on_after(0.2) as patience:
            await stream.receive_some()
        assert patience.cancelled_caught
        link.heal()
        assert await stream.receive_some() == b"waits"


async def test_a_link_that_resets_lets_nobody_through_until_it_is_healed() -> None:
    async with echo_behind_a_link() as link, await connected(link) as stream:
        link.cut(Kind.RESET)
        assert await is_reset(stream)
        async with await trio.open_tcp_stream("127.0.0.1", link.port) as refused:
            assert await is_reset(refused)
        link.heal()
        await (await connected(link)).aclose()


async def test_what_a_link_swallows_is_gone_and_so_is_the_connection() -> None:
    async with echo_behind_a_link() as link, await connected(link) as stream:
        link.cut(Kind.SWALLOW)
        await stream.send_all(b"gone")
        with trio.move_on_after(0.2) as patience:
            await stream.receive_some()
        assert patience.cancelled_caught
        link.heal()
        assert await is_reset(stream)
        await (await connected(link)).aclose()


async def test_a_daemon_is_killed_and_started_again_and_its_own_ends_are_noticed(tmp_path: Path) -> None:
    program = "print('here', flush=True); import time; time.sleep(60)"
    daemon = Daemon("sleeper", [sys.executable, "-c", program], tmp_path / "log")
    for starts in (1, 2):
        await daemon.start()
        await trio.to_thread.run_sync(wait_until, lambda n=starts: daemon.log.read_text().count("here") == n)
        daemon.pause()
        await daemon.kill()
    assert daemon.falls == []
    fallen = Daemon("fallen", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "other")
    await fallen.start()
    await fallen.wait()
    await fallen.kill()
    assert fallen.falls == ["fallen ended by itself with 3"]
