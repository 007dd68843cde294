"""The quickstarts through the command line: copied, run from their run files, watched from beside.

`test_quickstarts` plays them with their own policies; here the seconds are made shorter.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.processes import Process, process, surroundings_of
from support.redis_servers import RedisServer, find_redis_server

MESHNODE = [sys.executable, "-m", "meshnode"]
ORDERS = 12
OPENED = "changed state from closed to open"
HALF_OPENED = "changed state from open to half-open"
CLOSED = "changed state from half-open to closed"
ALL = f"all {ORDERS} orders are present, in order"


def copied(name: str, folder: Path) -> Path:
    """A quickstart as a user gets it, with a policy for the impatient."""
    subprocess.run([*MESHNODE, "new", name, str(folder / name)], check=True, capture_output=True)
    for policy in (folder / name).glob("resources*/resiliency.yaml"):
        text = policy.read_text()
        assert text.count("5s") == 2
        policy.write_text(
            text.replace("duration: 5s", "duration: 200ms").replace("timeout: 5s", "timeout: 1s")
        )
    return folder / name


@contextmanager
def running(folder: Path, home: Path, *args: str, **env: str) -> Iterator[Process]:
    """`meshnode run` in the quickstart's folder."""
    surroundings = {**surroundings_of(home), "ORDERS": str(ORDERS), "PACE": "0.15", **env}
    with process([*MESHNODE, "run", *args], cwd=folder, env=surroundings) as started:
        yield started


def states(home: Path) -> set[str]:
    """The states of all breakers in the node of `orders` or `checkout`, whichever runs."""
    env = {**os.environ, **surroundings_of(home)}
    done = subprocess.run(
        [*MESHNODE, "list", "-o", "json"], env=env, check=True, capture_output=True, text=True
    )
    app_ids = {record["app_id"] for record in json.loads(done.stdout)}
    (app_id,) = app_ids & {"orders", "checkout"}
    done = subprocess.run(
        [*MESHNODE, "breakers", app_id, "-o", "jsonl"], env=env, check=True, capture_output=True, text=True
    )
    return {json.loads(line)["state"] for line in done.stdout.splitlines()}


def test_the_embedded_default_needs_no_server(tmp_path: Path) -> None:
    env = {**surroundings_of(tmp_path), "ORDERS": str(ORDERS), "PACE": "0.05"}
    with process([*MESHNODE, "quickstart"], env=env) as quickstart:
        quickstart.wait_for(ALL, seconds=60)
        assert quickstart.popen.wait(30) == 0
    assert "processed order 1 (invoke)" in quickstart.output
    assert "processed order 2 (stub)" in quickstart.output


def test_state_on_sqlite(tmp_path: Path) -> None:
    folder = copied("state-resiliency", tmp_path)
    with running(folder, tmp_path, "-f", "mesh.yaml", PATH=_path(), PACE="0.01") as orders:
        orders.wait_for(ALL)
        assert orders.popen.wait(30) == 0


@pytest.mark.redis
def test_breaker_states_are_seen_while_the_store_is_away(tmp_path: Path) -> None:
    if find_redis_server() is None:
        pytest.skip("redis-server is not installed")
    folder = copied("state-resiliency", tmp_path)
    server = RedisServer(tmp_path / "redis", persistent=True)
    component = folder / "resources-redis" / "statestore.yaml"
    component.write_text(component.read_text().replace("localhost:6379", server.address))
    server.start()
    try:
        args = ("--app-id", "orders", "--resources-path", "resources-redis", "--", sys.executable)
        with running(folder, tmp_path, *args, "orders/app.py") as orders:
            at = orders.wait_for("read order 4")
            server.kill()
            at = orders.wait_for(
                "Error processing operation component[statestore] output. Retrying in 200ms", after=at
            )
            at = orders.wait_for(OPENED, after=at)
            assert states(tmp_path) & {"open", "half-open"}
            server.start()
            at = orders.wait_for(HALF_OPENED, after=at)
            at = orders.wait_for(CLOSED, after=at)
            orders.wait_for("Recovered processing operation component[statestore] output after", after=at - 1)
            orders.wait_for(ALL, after=at)
            assert orders.popen.wait(30) == 0
    finally:
        server.stop()
    assert re.findall(r"saved order (\d+)", orders.output) == [str(n) for n in range(1, ORDERS + 1)]


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def test_new(tmp_path: Path) -> None:
    folder = copied("state-resiliency", tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "mesh.yaml",
        "orders",
        "resources",
        "resources-redis",
    }
    again = subprocess.run(
        [*MESHNODE, "new", "state-resiliency", str(folder)], capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "exists already" in again.stderr
    unknown = subprocess.run([*MESHNODE, "new", "stat"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
