"""Publishing and delivering: throughput, latency and CPU time per message, for each pub/sub component.

`publish` is PublishEvent alone, with nobody subscribed. `deliver` is the whole way: PublishEvent, broker,
OnTopicEvent, acknowledgement; its latency is from the call of PublishEvent to the application's having the
event, and its messages per second are those that arrived. In-memory, SQLite and Redis are started here; a
component on any other broker is given as a file:

    python benchmarks/pubsub.py --only 'deliver sqlite,deliver redis' --in-flight 1,64
    python benchmarks/pubsub.py --component kafka=kafka.yaml --pid kafka=1234

The file's component must be named `bench`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _bench.cpu import cpu_seconds
from _bench.flow import PUBSUB
from _bench.nodes import component, running_node
from _bench.options import Options, chosen, flags, options_of, run_script
from _bench.others import redis_program, running_redis
from _bench.processes import Failure, Program, python, running
from _bench.report import cell, save_json, surroundings, table
from _bench.stats import spread
from attrs import field, frozen

_STARTING = 60.0
_PATIENCE = 60.0  # seconds for one measurement


@frozen
class Bench:
    """One component with its node. `subscriber` is the application before it; None where nobody listens."""

    name: str
    node: str
    publisher: Program
    subscriber: Program | None
    pids: Mapping[str, int]
    rounds: dict[str, list[dict[str, Any]]] = field(factory=dict)


def main() -> None:
    parser = flags(__doc__, rate="", in_flight="1,64")
    parser.add_argument("--count", type=int, default=2000, help="messages of one measurement (default 2000)")
    parser.add_argument(
        "--component", action="append", default=[], metavar="NAME=FILE", help="another broker's component"
    )
    parser.add_argument(
        "--pid",
        action="append",
        default=[],
        metavar="NAME=PID",
        help="that broker's process, for its CPU time",
    )
    parsed = parser.parse_args()
    options = options_of(parsed)
    given = dict(one.split("=", 1) for one in parsed.component)
    pids = {name: int(pid) for name, pid in (one.split("=", 1) for one in parsed.pid)}
    brokers = ["in-memory", "sqlite", *(["redis"] if redis_program() else ()), *given]
    rows = chosen(options, [f"{what} {broker}" for broker in brokers for what in ("publish", "deliver")])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshnode-bench-")))
        publisher = stack.enter_context(running("publisher", python("_bench.flow", "publisher"), stdin=True))
        publisher.line(_STARTING)
        benches = []
        for row in rows:
            what, _, broker = row.partition(" ")
            text, own_pids = stack.enter_context(_component(folder, row, broker, given))
            own_pids |= {"broker": pids[broker]} if broker in pids else {}
            benches.append(_bench(stack, folder, row, text, own_pids, publisher, listens=what == "deliver"))
        _measure(benches, options, parsed.count)
    _publish(benches, options, parsed)


@contextmanager
def _component(
    folder: Path, row: str, broker: str, given: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, int]]]:
    """The component's YAML, and the broker's process where there is one."""
    if broker in given:
        yield Path(given[broker]).read_text(encoding="utf-8"), {}
    elif broker == "redis":
        with running_redis(folder) as (server, address):
            yield component(PUBSUB, "pubsub.redis", redisHost=address), {"broker": server.pid}
    elif broker == "sqlite":
        path = str(folder / f"{row.replace(' ', '-')}.db")
        yield component(PUBSUB, "pubsub.sqlite", connectionString=path), {}
    else:
        yield component(PUBSUB, f"pubsub.{broker}"), {}


def _bench(
    stack: ExitStack,
    folder: Path,
    row: str,
    text: str,
    pids: dict[str, int],
    publisher: Program,
    *,
    listens: bool,
) -> Bench:
    subscriber, app = None, None
    if listens:
        subscriber = stack.enter_context(running("app", python("_bench.flow", "subscriber"), stdin=True))
        app = str(subscriber.line(_STARTING)["address"])
    name = row.replace(" ", "-")
    node = stack.enter_context(
        running_node(f"node-{name}", folder, f"pubsub-{name}", app=app, components={"pubsub": text})
    )
    pids = {"node": node.program.pid, **pids}
    return Bench(row, node.address, publisher, subscriber, pids)


def _measure(benches: Sequence[Bench], options: Options, count: int) -> None:
    """All rows under all loads in turn, forwards and backwards; first each once to warm up."""
    for bench in benches:
        _once(bench, options.size, min(count, options.warm_up), 16)
    for number in range(options.rounds):
        for load in options.loads:
            for bench in benches if number % 2 == 0 else reversed(benches):
                found = _once(bench, options.size, count, load.in_flight or 1)
                bench.rounds.setdefault(str(load), []).append(found)


def _once(bench: Bench, size: int, count: int, in_flight: int) -> dict[str, Any]:
    if bench.subscriber is not None:
        bench.subscriber.send({"reset": True})
        bench.subscriber.line(_PATIENCE)
    before = {role: cpu_seconds(pid) for role, pid in bench.pids.items()}
    order = {
        "target": bench.node, "size": size, "count": count, "in_flight": in_flight, "patience": _PATIENCE,
    }  # fmt: skip
    bench.publisher.send(order)
    figures = bench.publisher.line(2 * _PATIENCE)
    published = count - sum(figures["errors"].values())
    if bench.subscriber is not None:
        bench.subscriber.send({"count": published, "patience": _PATIENCE})
        arrived = bench.subscriber.line(2 * _PATIENCE)
        if arrived["received"] < published:
            raise Failure(f"{bench.name}: {published} messages were published, {arrived['received']} arrived")
        figures |= {name: arrived[name] for name in ("seconds", "latency_ms")}
    after = {role: cpu_seconds(pid) for role, pid in bench.pids.items()}
    cpu = {}
    for role, begun in before.items():
        ended = after[role]
        cpu[role] = None if begun is None or ended is None else round((ended - begun) / count * 1e6, 2)
    return figures | {"per_second": round(published / figures["seconds"], 1), "cpu_us": cpu}


def _publish(benches: Sequence[Bench], options: Options, parsed: argparse.Namespace) -> None:
    print(f"pubsub: medians of {options.rounds} rounds (lowest–highest), {parsed.count} messages of "
          f"{options.size} bytes\n")  # fmt: skip
    titles = ["", "load", "messages/s", "p50 ms", "p99", "CPU µs of the node", "of the broker", "errors"]
    rows = [_row(bench, load, found) for bench in benches for load, found in bench.rounds.items()]
    print(table(titles, rows))
    where = surroundings()
    print(f"\nIn the same minute an empty trio nursery took {where['empty_nursery_us']:g} µs of CPU time.")
    results = [
        {"subject": bench.name, "load": load, "rounds": found}
        for bench in benches
        for load, found in bench.rounds.items()
    ]
    document = {
        "benchmark": "pubsub",
        "surroundings": where,
        "options": options.to_json(),
        "results": results,
    }
    save_json(options.json, document | {"count": parsed.count})


def _row(bench: Bench, load: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    errors = sum(sum(one["errors"].values()) for one in found)
    return [
        bench.name, load,
        cell(spread(one["per_second"] for one in found)),
        cell(spread(one["latency_ms"]["p50"] for one in found)),
        cell(spread(one["latency_ms"]["p99"] for one in found), short=True),
        cell(spread(one["cpu_us"]["node"] for one in found)),
        cell(spread(one["cpu_us"].get("broker") for one in found)),
        str(errors),
    ]  # fmt: skip


if __name__ == "__main__":
    run_script(main)
