"""Machine instructions that one call costs a process, counted by valgrind: the same figure on a busy machine.

It says what a change of the code does where times drown in noise. What it does not see: caches, and the
kernel. The unit beside it is an empty trio nursery, about 10 microseconds on a quiet machine. Each row takes
about a minute. `echo same` is the echo service with the same headers in all calls.

    python benchmarks/instructions.py --only 'proxy A,proxy B'
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from _bench.answers import INVOKE, invoke_request
from _bench.measurement import Load, Order
from _bench.nodes import component, running_app, running_node
from _bench.options import run_script
from _bench.others import redis_program, running_redis
from _bench.processes import Failure, python, running
from _bench.report import save_json, surroundings, table
from _bench.requests import Request, echo_request
from _bench.stores import fill, state_requests

from meshnode.wire.dapr.proto.runtime import v1 as runtime

_SIZE = 1024
_IN_FLIGHT = 16
_WARM_UP = 300
_SCALE = 1000
_NURSERIES = """
import sys, trio
async def main():
    for _ in range(int(sys.argv[1])):
        async with trio.open_nursery():
            pass
trio.run(main)
"""

Wrapper = Sequence[str]
Start = Callable[[ExitStack, Path, Wrapper], tuple[str, Request]]
"""Starts what is called, the counted process under the wrapper, and tells where to send what."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=2000, help="counted calls of each row (default 2000)")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="only these rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise Failure("valgrind is not installed; it is a package of that name in most distributions")
    rows = _rows()
    names = list(filter(None, options.only.split(","))) or list(rows)
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise Failure(f"--only: there is no {unknown[0]!r}; there are {', '.join(rows)}")
    unit = _slope(_nurseries, options.calls)
    counted = {name: _slope(partial(_calls, rows[name]), options.calls) for name in names}
    cells = [[name, f"{count / _SCALE:,.0f}", f"{count / unit:.1f}"] for name, count in counted.items()]
    print(table(["one call of", "thousand instructions", "empty nurseries"], cells))
    results = [{"subject": name, "instructions": round(count)} for name, count in counted.items()]
    document = {"benchmark": "instructions", "surroundings": surroundings(), "results": results}
    save_json(options.json, document | {"empty_nursery_instructions": round(unit)})


def _rows() -> dict[str, Start]:
    rows: dict[str, Start] = {
        "echo same": partial(_echo, False),
        "echo": partial(_echo, True),
        "proxy A": partial(_chain, "A", _proxied),
        "proxy B": partial(_chain, "B", _proxied),
        "invoke A": partial(_chain, "A", _invoked),
        "invoke B": partial(_chain, "B", _invoked),
    }
    stores = ["in-memory", "sqlite", *(["redis"] if redis_program() else ())]
    for store in stores:
        for verb in ("save", "get"):
            rows[f"{verb} {store}"] = partial(_state, store, verb)
    return rows


def _slope(count: Callable[[int, Path, Wrapper], None], calls: int) -> float:
    """Instructions of one more call: start-up and warm-up cancel out."""
    few = _counted(count, calls // 10)
    return (_counted(count, calls + calls // 10) - few) / calls


def _counted(count: Callable[[int, Path, Wrapper], None], calls: int) -> int:
    with TemporaryDirectory(prefix="meshnode-bench-") as name:
        log = Path(name, "valgrind.log")
        tool = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
        count(calls, Path(name), (*tool, f"--log-file={log}"))
        found = re.search(r"I\s+refs:\s+([\d,]+)", log.read_text(encoding="utf-8"))
    if found is None:
        raise Failure("valgrind has counted nothing")
    return int(found[1].replace(",", ""))


def _nurseries(count: int, folder: Path, wrapper: Wrapper) -> None:
    subprocess.run([*wrapper, sys.executable, "-c", _NURSERIES, str(count)], check=True, cwd=folder)


def _calls(start: Start, calls: int, folder: Path, wrapper: Wrapper) -> None:
    with ExitStack() as stack:
        target, request = start(stack, folder, wrapper)
        client = stack.enter_context(running("client", python("_bench.client", "meshnode"), stdin=True))
        order = Order(
            target, request, Load(_IN_FLIGHT), seconds=3600, max_calls=calls, warm_up=_WARM_UP, seed=1
        )
        client.line(60)
        client.send(order.to_json())
        client.line(600)
        client.send({"go": True})
        errors = client.line(3600)["errors"]
    if errors:
        raise Failure(f"calls failed: {errors}")


def _echo(varying: bool, stack: ExitStack, folder: Path, wrapper: Wrapper) -> tuple[str, Request]:
    _, address = stack.enter_context(running_app("meshnode", _SIZE, wrapper=wrapper))
    return address, echo_request(_SIZE, varying=varying)


def _chain(
    counted: str, request: Callable[[], Request], stack: ExitStack, folder: Path, wrapper: Wrapper
) -> tuple[str, Request]:
    _, app = stack.enter_context(running_app("raw", _SIZE))
    around = {counted: wrapper}
    stack.enter_context(running_node("B", folder, "echo", app=app, wrapper=around.get("B", ())))
    front = stack.enter_context(running_node("A", folder, "caller", wrapper=around.get("A", ())))
    return front.address, request()


def _proxied() -> Request:
    return echo_request(_SIZE, varying=True, metadata=[("dapr-app-id", "echo")])


def _invoked() -> Request:
    message = runtime.InvokeServiceRequest(id="echo", message=invoke_request(_SIZE))
    return Request(INVOKE, [bytes(message)])


def _state(store: str, verb: str, stack: ExitStack, folder: Path, wrapper: Wrapper) -> tuple[str, Request]:
    metadata = {}
    if store == "redis":
        metadata["redisHost"] = stack.enter_context(running_redis(folder))[1]
    elif store == "sqlite":
        metadata["connectionString"] = str(folder / "bench.db")
    components = {"store": component("bench", f"state.{store}", **metadata)}
    node = stack.enter_context(running_node("node", folder, "state", components=components, wrapper=wrapper))
    requests = state_requests("bench", _SIZE, varying=True)
    trio.run(fill, node.address, requests["save"])
    return node.address, requests[verb]


if __name__ == "__main__":
    run_script(main)
