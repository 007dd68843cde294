"""SaveState and GetState of one node, on each of the stores it comes with.

The main column is the CPU time of the node; that of redis-server stands beside it. `direct` is the same
message to an application that answers at once: what the call costs without a node.

    python benchmarks/state.py --only 'save in-memory,get in-memory' --in-flight 16
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from _bench.against import AGAINST, add_flags, against
from _bench.dapr import DAPRD, running_daprd
from _bench.direct import BASELINES, direct_subjects
from _bench.nodes import component, running_app, running_node
from _bench.options import Options, chosen, flags, options_of, run_script
from _bench.others import redis_program, running_redis
from _bench.report import Pair, publish
from _bench.rounds import Subject, measure
from _bench.stores import fill, state_requests

_STORE = "bench"


def main() -> None:
    parser = flags(__doc__, rate="1000")
    add_flags(parser, also=DAPRD)
    parser.add_argument("--store", default="statestore", help="with --against: the store there (statestore)")
    parser.add_argument("--baselines", action="store_true", help="direct calls of grpclib and grpcio, too")
    parsed = parser.parse_args()
    options = options_of(parsed)
    stores = ["in-memory", "sqlite", *(["redis"] if redis_program() else ())]
    kinds = [
        "direct",
        *(BASELINES if parsed.baselines else ()),
        *stores,
        *([f"{DAPRD}-{store}" for store in stores] if parsed.against == DAPRD else ()),
        *([AGAINST] if parsed.against not in (None, DAPRD) else ()),
    ]
    rows = chosen(options, [f"{verb} {kind}" for kind in kinds for verb in ("save", "get")])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshnode-bench-")))
        subjects = _direct(stack, rows, options)
        for store in stores:
            if any(row.endswith(f" {store}") for row in rows):
                subjects += _of_sidecar(stack, folder, store, rows, options)
            if any(row.endswith(f"{DAPRD}-{store}") for row in rows):
                subjects += _of_sidecar(stack, folder, store, rows, options, daprd=True)
        if parsed.against not in (None, DAPRD):
            subjects += _against(parsed, rows, options)
        results = measure(subjects, options)
    anchors = {store: f"{DAPRD}-{store}" if parsed.against == DAPRD else AGAINST for store in stores}
    pairs = [
        Pair(f"{verb} {store}", f"{verb} {anchors[store]}") for store in stores for verb in ("save", "get")
    ]
    publish("state", results, pairs, options, "of the node")


def _direct(stack: ExitStack, rows: list[str], options: Options) -> list[Subject]:
    if not any(row.split()[1] in ("direct", *BASELINES) for row in rows):
        return []
    app, address = stack.enter_context(running_app("raw", options.size))
    subjects = []
    for verb, request in state_requests(_STORE, options.size, varying=options.varying).items():
        subjects += direct_subjects(stack, rows, request, app, address, options.size, prefix=f"{verb} ")
    return subjects


def _of_sidecar(
    stack: ExitStack, folder: Path, store: str, rows: list[str], options: Options, *, daprd: bool = False
) -> list[Subject]:
    """The rows of a node, or of a daprd, on a store of its own."""
    kind = f"{DAPRD}-{store}" if daprd else store
    pids = {}
    metadata = {}
    if store == "redis":
        server, where = stack.enter_context(running_redis(folder))
        pids["redis"] = server.pid
        metadata["redisHost"] = where
    elif store == "sqlite":
        metadata["connectionString"] = str(folder / f"{kind}.db")
    text = component(_STORE, f"state.{store}", **metadata)
    if daprd:
        starting = running_daprd(f"node-{kind}", folder, f"state-{kind}", components={"store": text})
        program, address = stack.enter_context(starting)
    else:
        node = stack.enter_context(
            running_node(f"node-{store}", folder, f"state-{store}", components={"store": text})
        )
        program, address = node.program, node.address
    pids["node"] = program.pid
    requests = state_requests(_STORE, options.size, varying=options.varying)
    trio.run(fill, address, requests["save"])
    names = {verb: f"{verb} {kind}" for verb in requests}
    return [
        Subject(names[verb], address, request, pids, ("node",))
        for verb, request in requests.items()
        if names[verb] in rows
    ]


def _against(parsed: argparse.Namespace, rows: list[str], options: Options) -> list[Subject]:
    requests = state_requests(parsed.store, options.size, varying=options.varying)
    trio.run(fill, parsed.against, requests["save"])
    named = {f"{verb} {AGAINST}": request for verb, request in requests.items()}
    return [against(parsed, name, request) for name, request in named.items() if name in rows]


if __name__ == "__main__":
    run_script(main)
