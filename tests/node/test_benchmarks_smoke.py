"""The benchmark scripts run, count every call, and leave nothing running. How fast it was is not asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"
TINY = [
    *("--rounds", "1", "--seconds", "0.1", "--in-flight", "3", "--rate", "200"),
    *("--warm-up", "5", "--max-calls", "20"),
]
MARK = "MESHNODE_BENCH_TEST"


def run(script: str, *arguments: str, file: Path) -> dict[str, Any]:
    """What the script writes with `--json`, once it has ended well."""
    mark = uuid.uuid4().hex
    command = [sys.executable, str(BENCHMARKS / script), *arguments, "--json", str(file)]
    done = subprocess.run(command, env=os.environ | {MARK: mark}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert left_over(mark) == []
    written: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert written["benchmark"] == script.removesuffix(".py")
    assert f"{written['benchmark']}: medians of 1 rounds" in done.stdout
    return written


def left_over(mark: str) -> list[str]:
    """Processes that inherited the mark and still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_text(encoding="utf-8", errors="replace"):
                found.append(path.with_name("cmdline").read_text(encoding="utf-8").replace("\0", " "))
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
    return found


def check_loads(written: dict[str, Any], roles: dict[str, set[str]]) -> None:
    """Each row under each load: every call answered, and CPU time for every process that took part."""
    seen: dict[str, list[str]] = {}
    for result in written["results"]:
        seen.setdefault(result["subject"], []).append(result["load"]["mode"])
        (one,) = result["rounds"]
        assert one["errors"] == {}
        assert 3 <= one["calls"] <= 20
        latency = one["latency_ms"]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
        assert one["cpu_us_per_call"].keys() == {"client"} | roles[result["subject"]]
        assert one["cpu_us"] > 0
        summary = result["summary"]["calls_per_second"]
        assert summary["low"] == summary["median"] == summary["high"] > 0
    assert seen == {name: ["closed", "open"] for name in roles}


@pytest.mark.parametrize("client", ["meshnode", "grpcio"])
async def test_transport_against_the_other_libraries(client: str, tmp_path: Path) -> None:
    written = run("transport.py", *TINY, "--client", client, file=tmp_path / "out.json")
    kinds = ("meshnode", "raw", "grpclib", "grpcio", "grpcio-threads")
    check_loads(written, {kind: {"server"} for kind in kinds})
    assert {(one["title"], one["load"]) for one in written["comparisons"]} >= {
        ("meshnode ÷ grpclib", "3 in flight"),
        ("meshnode ÷ grpcio", "200/s open"),
    }


async def test_proxied_calls_through_two_nodes(tmp_path: Path) -> None:
    written = run("proxy.py", *TINY, "--headers", "same", file=tmp_path / "out.json")
    check_loads(written, {"direct": {"app"}, "meshnode": {"node A", "node B", "app"}})


async def test_invocations_through_two_nodes(tmp_path: Path) -> None:
    written = run("invoke.py", *TINY, "--baselines", file=tmp_path / "out.json")
    chain = {"node A", "node B", "app"}
    direct = {name: {"app"} for name in ("direct", "grpclib", "grpcio")}
    check_loads(written, direct | {"meshnode": chain, "proxied": chain})


async def test_every_store_of_the_state_api(tmp_path: Path) -> None:
    written = run("state.py", *TINY, file=tmp_path / "out.json")
    roles = {"direct": {"app"}, "in-memory": {"node"}, "sqlite": {"node"}}
    if shutil.which("redis-server"):
        roles["redis"] = {"node", "redis"}
    check_loads(written, {f"{verb} {kind}": who for kind, who in roles.items() for verb in ("save", "get")})


async def test_every_broker_of_the_pubsub_api(tmp_path: Path) -> None:
    arguments = ("--rounds", "1", "--count", "20", "--warm-up", "5", "--in-flight", "3")
    written = run("pubsub.py", *arguments, file=tmp_path / "out.json")
    brokers = ["in-memory", "sqlite", *(["redis"] if shutil.which("redis-server") else ())]
    found = {one["subject"]: one["rounds"] for one in written["results"]}
    assert found.keys() == {f"{what} {broker}" for broker in brokers for what in ("publish", "deliver")}
    for (one,) in found.values():
        assert one["errors"] == {}
        assert one["per_second"] > 0 < one["latency_ms"]["p50"] <= one["latency_ms"]["max"]
        assert one["cpu_us"]["node"] > 0


async def test_another_sidecar_under_the_same_load(tmp_path: Path) -> None:
    from _bench.nodes import running_app, running_chain

    with running_app("raw", 64) as (app, address), running_chain(tmp_path, address) as (front, _):
        arguments = ("--only", "against", "--against", front.address, "--pid", f"app={app.pid}")
        written = run("proxy.py", *TINY, *arguments, file=tmp_path / "out.json")
    check_loads(written, {"against": {"app"}})


async def test_startup_and_idle_memory(tmp_path: Path) -> None:
    written = run("startup.py", "--rounds", "1", "--idle", "0", file=tmp_path / "out.json")
    figures = {one["subject"]: one["summary"] for one in written["results"]}
    assert {"python", "imports", "node, embedded store", "node, in-memory"} <= figures.keys()
    node = figures["node, in-memory"]
    assert node["ready_ms"]["median"] > 0 < node["idle_mib"]["median"]
