"""How long a node takes from the start of its process until its API answers, and what it holds when idle.

`python` and `imports` are what the interpreter and the node's modules need of it.

    python benchmarks/startup.py --rounds 10
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _bench.cpu import cpu_seconds, resident_mib
from _bench.nodes import component, running_node
from _bench.options import run_script
from _bench.others import redis_program, running_redis
from _bench.report import cell, save_json, surroundings, table
from _bench.stats import spread

Sample = dict[str, float | None]
_FIGURES = {"ready_ms": "ms to ready", "cpu_ms": "CPU ms to ready", "idle_mib": "idle MiB"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="how often each is started, in turn (default 7)"
    )
    parser.add_argument(
        "--idle", type=float, default=1.0, help="seconds until memory is looked at (default 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, round by round")
    options = parser.parse_args()
    samples: dict[str, list[Sample]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshnode-bench-")))
        starts = _starts(stack, folder, options.idle)
        for number in range(options.rounds):
            for name in starts if number % 2 == 0 else reversed(starts):
                samples.setdefault(name, []).append(starts[name](number))
    _publish(samples, options.rounds, options.json)


def _starts(stack: ExitStack, folder: Path, idle: float) -> dict[str, Callable[[int], Sample]]:
    """What is started, by name."""
    components = {"embedded store": "", "in-memory": component("store", "state.in-memory")}
    if redis_program() is not None:
        _, where = stack.enter_context(running_redis(folder))
        components["redis"] = component("store", "state.redis", redisHost=where)
    starts: dict[str, Callable[[int], Sample]] = {
        "python": lambda _: _interpreter("pass"),
        "imports": lambda _: _interpreter("import meshnode.process"),
    }
    for name, text in components.items():
        starts[f"node, {name}"] = partial(_node, folder, name, text, idle)
    return starts


def _interpreter(code: str) -> Sample:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return {"ready_ms": (time.perf_counter() - begun) * 1e3}


def _node(folder: Path, name: str, text: str, idle: float, number: int) -> Sample:
    role = f"{name}-{number}"
    components = {"store": text} if text else None
    with running_node(role, folder, role.replace(" ", "-"), components=components) as node:
        cpu = cpu_seconds(node.program.pid)
        time.sleep(idle)  # what start-up left behind is freed by now
        memory = resident_mib(node.program.pid)
    return {
        "ready_ms": node.ready_seconds * 1e3,
        "cpu_ms": None if cpu is None else cpu * 1e3,
        "idle_mib": memory,
    }


def _publish(samples: dict[str, list[Sample]], rounds: int, file: Path | None) -> None:
    print(f"startup: medians of {rounds} rounds (lowest–highest)\n")
    summaries = {
        name: {figure: spread(one.get(figure) for one in taken) for figure in _FIGURES}
        for name, taken in samples.items()
    }
    rows = [[name, *(cell(value) for value in summary.values())] for name, summary in summaries.items()]
    print(table(["", *_FIGURES.values()], rows))
    results: list[dict[str, Any]] = [
        {"subject": name, "summary": summary, "rounds": samples[name]} for name, summary in summaries.items()
    ]
    document = {"benchmark": "startup", "surroundings": surroundings(), "results": results}
    save_json(file, document)


if __name__ == "__main__":
    run_script(main)
