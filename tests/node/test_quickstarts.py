"""The quickstarts, played as their READMEs tell: real processes, a real Redis and a real service killed and
brought back.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from support.postgres_servers import find_postgres, postgres_server
from support.processes import ROOT, Process, process, surroundings_of
from support.redis_servers import RedisServer, find_redis_server, free_port, redis_server

QUICKSTARTS = ROOT / "meshnode" / "quickstarts"
pytestmark = pytest.mark.timeout(240)


@contextmanager
def run(home: Path, app_id: str, folder: Path, *flags: str, **env: str) -> Iterator[Process]:
    """`meshnode run` of one of a quickstart's applications."""
    command = [
        sys.executable,
        "-m",
        "meshnode",
        "run",
        "--app-id",
        app_id,
        *flags,
        "--",
        sys.executable,
        "app.py",
    ]
    surroundings = {
        **surroundings_of(home),
        "PYTHONPATH": str(folder.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        **env,
    }
    with process(command, env=surroundings, cwd=folder) as running:
        yield running


def resources(home: Path, kind: str, quickstart: str = "state_resiliency", **values: str) -> Path:
    """A copy of a quickstart's resources with some values of its own."""
    folder = home / kind
    folder.mkdir()
    for path in (QUICKSTARTS / quickstart / kind).iterdir():
        text = path.read_text()
        for old, new in values.items():
            assert path.name in ("resiliency.yaml", "cron.yaml") or old in text
            text = text.replace(old, new)
        (folder / path.name).write_text(text)
    return folder


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if find_redis_server() is None:
        pytest.skip("redis-server is not installed")
    with redis_server(tmp_path, persistent=True) as server:
        yield server


@pytest.mark.redis
@pytest.mark.slow
def test_orders_survive_a_redis_that_is_killed(tmp_path: Path, redis: RedisServer) -> None:
    folder = resources(tmp_path, "resources-redis", **{"localhost:6379": redis.address})
    app = QUICKSTARTS / "state_resiliency" / "orders"
    with run(tmp_path, "orders", app, "--resources-path", str(folder), ORDERS="12", PACE="0.2") as running:
        at = running.wait_for("read order 3")
        redis.kill()
        at = running.wait_for(
            "Error processing operation component[statestore] output. Retrying in 5s…", after=at
        )
        at = running.wait_for(
            r"Circuit breaker \"orderBreaker-statestore\" changed state from closed to open",
            seconds=60,
            after=at,
        )
        stopped_at = _highest(running, "saved order ")
        redis.start()
        at = running.wait_for("changed state from open to half-open", seconds=30, after=at)
        at = running.wait_for("changed state from half-open to closed", after=at)
        at = running.wait_for("Recovered processing operation component[statestore] output after", after=at)
        assert _highest(running, "saved order ", upto=at) <= stopped_at + 1
        running.wait_for("all 12 orders are present, in order", seconds=60, after=at)
        assert running.popen.wait(20) == 0


def _highest(running: Process, text: str, upto: int | None = None) -> int:
    numbers = [int(line.rpartition(text)[2]) for line in running.lines[:upto] if text in line]
    return max(numbers)


def test_sqlite_instead_of_redis_without_touching_the_application(tmp_path: Path) -> None:
    folder = resources(tmp_path, "resources", **{"orders.db": str(tmp_path / "orders.db")})
    app = QUICKSTARTS / "state_resiliency" / "orders"
    with run(tmp_path, "orders", app, "--resources-path", str(folder), ORDERS="5", PACE="0") as running:
        running.wait_for("all 5 orders are present, in order")
        assert running.popen.wait(20) == 0
    assert (tmp_path / "orders.db").exists()


@pytest.mark.slow
def test_orders_survive_an_order_processor_that_is_killed(tmp_path: Path) -> None:
    quickstart = QUICKSTARTS / "service_resiliency"
    flags = ("--resources-path", str(quickstart / "resources"))
    port = str(free_port())

    def processor() -> AbstractContextManager[Process]:
        app = quickstart / "order_processor"
        return run(tmp_path, "order-processor", app, "--app-port", port, *flags)

    with run(tmp_path, "checkout", quickstart / "checkout", *flags, ORDERS="12", PACE="0.3") as checkout:
        with processor() as first:
            checkout.wait_for("order 3 accepted (InvokeService)", seconds=60)
            at = checkout.wait_for("order 4 accepted (stub)")
            _kill_with_children(first)
        at = checkout.wait_for(
            "Error processing operation endpoint[order-processor, order-processor:", after=at
        )
        assert "Retrying in 5s…" in checkout.lines[at]
        at = checkout.wait_for("changed state from closed to open", seconds=60, after=at)
        with processor() as second:
            second.wait_for("application ready")
            at = checkout.wait_for("changed state from open to half-open", seconds=30, after=at)
            at = checkout.wait_for("changed state from half-open to closed", after=at)
            at = checkout.wait_for("Recovered processing operation endpoint[order-processor, ", after=at)
            checkout.wait_for("all 12 orders are present, in order", seconds=60, after=at)
            assert checkout.popen.wait(20) == 0


PUB_SUB = QUICKSTARTS / "pub_sub"


@contextmanager
def order_processor(home: Path, folder: Path) -> Iterator[Process]:
    """The order processor of *pub_sub* beside its node."""
    flags = ("--app-port", str(free_port()), "--resources-path", str(folder))
    with run(home, "order-processor", PUB_SUB / "order_processor", *flags) as running:
        yield running


@contextmanager
def publisher(home: Path, folder: Path, pace: str) -> Iterator[Process]:
    """The checkout of *pub_sub* beside its node; 12 orders."""
    flags = ("--resources-path", str(folder))
    with run(home, "checkout", PUB_SUB / "checkout", *flags, ORDERS="12", PACE=pace) as running:
        yield running


@pytest.mark.redis
@pytest.mark.slow
def test_published_orders_survive_a_redis_that_is_killed(tmp_path: Path, redis: RedisServer) -> None:
    folder = resources(tmp_path, "resources-redis", "pub_sub", **{"localhost:6379": redis.address})
    with order_processor(tmp_path, folder) as processor, publisher(tmp_path, folder, "0.3") as checkout:
        processor.wait_for("processed order 3", seconds=60)
        redis.kill()
        at = checkout.wait_for("Error processing operation component[orderpubsub] output. Retrying in 5s…")
        checkout.wait_for(
            r"Circuit breaker \"orderBreaker-orderpubsub\" changed state from closed to open",
            seconds=60,
            after=at,
        )
        redis.start()
        checkout.wait_for("Recovered processing operation component[orderpubsub] output after", after=at)
        checkout.wait_for("all 12 orders have been processed", seconds=90)
        assert checkout.popen.wait(20) == 0
        assert _highest(processor, "processed order ") == 12


def test_published_orders_wait_for_an_order_processor_that_was_killed(tmp_path: Path) -> None:
    folder = resources(
        tmp_path, "resources", "pub_sub", **{"orderpubsub.db": str(tmp_path / "orderpubsub.db")}
    )
    with publisher(tmp_path, folder, "0.3") as checkout:
        with order_processor(tmp_path, folder) as first:
            first.wait_for("processed order 3", seconds=60)
            _kill_with_children(first)
        checkout.wait_for("order 12 published")
        assert "all 12" not in checkout.output
        with order_processor(tmp_path, folder) as second:
            checkout.wait_for("all 12 orders have been processed", seconds=60)
            assert checkout.popen.wait(20) == 0
            assert _highest(second, "processed order ") == 12


def test_a_schedule_and_files_as_bindings(tmp_path: Path) -> None:
    folder = resources(tmp_path, "resources", "bindings", **{"./orders": str(tmp_path / "orders")})
    flags = ("--app-port", str(free_port()), "--resources-path", str(folder))
    with run(tmp_path, "batch", QUICKSTARTS / "bindings" / "batch", *flags, BATCHES="2") as batch:
        batch.wait_for("batch 1 written: 3 orders")
        batch.wait_for("all 2 batches are written")
        assert batch.popen.wait(20) == 0
    assert sorted(path.name for path in (tmp_path / "orders").iterdir()) == ["batch-1.json", "batch-2.json"]


def test_a_schedule_and_a_database_as_bindings(tmp_path: Path) -> None:
    if find_postgres() is None:
        pytest.skip("postgres is not installed")
    with postgres_server() as server, psycopg.connect(server.url, autocommit=True) as database:
        database.execute("CREATE TABLE orders (batch integer, number integer, total numeric)")
        example = "host=localhost port=5432 user=postgres password=docker dbname=orders"
        folder = resources(tmp_path, "resources-postgresql", "bindings", **{example: server.url})
        flags = ("--app-port", str(free_port()), "--resources-path", str(folder))
        env = {"BATCHES": "2", "OUTPUT": "postgresql"}
        with run(tmp_path, "batch", QUICKSTARTS / "bindings" / "batch", *flags, **env) as batch:
            batch.wait_for("all 2 batches are written")
            assert batch.popen.wait(20) == 0
        rows = database.execute(
            "SELECT batch, count(*), sum(total) FROM orders GROUP BY batch ORDER BY batch"
        )
        assert rows.fetchall() == [(1, 3, 63), (2, 3, 63)]


def _kill_with_children(running: Process) -> None:
    """SIGKILL to `meshnode run`, its node and its application: nobody is left to tidy up."""
    for pid in (running.popen.pid, *_descendants(running.popen.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.popen.wait()


def _descendants(pid: int) -> list[int]:
    listed = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    children = [int(child) for task in listed for child in task]
    return children + [below for child in children for below in _descendants(child)]
