"""Transparent proxying: client -> node A -> node B -> application, against a direct call of the application.

Messages are passed on undecoded; headers vary from call to call (a trace context, a deadline, an id). The
main column is the CPU time of one hop: the mean of both nodes', or the application's in a direct call.

    python benchmarks/proxy.py --against envoy --in-flight 16
    python benchmarks/proxy.py --against daprd --in-flight 16
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from _bench.against import AGAINST, add_flags, against
from _bench.dapr import DAPRD, daprd_program, running_daprds
from _bench.direct import BASELINES, direct_subjects
from _bench.nodes import running_app, running_chain
from _bench.options import Options, chosen, flags, options_of, run_script
from _bench.others import envoy_program, running_envoys
from _bench.report import Pair, publish
from _bench.requests import Request, echo_request
from _bench.rounds import Subject, measure


def main() -> None:
    parser = flags(__doc__, rate="1000")
    add_flags(parser, also="envoy|daprd")
    parser.add_argument("--baselines", action="store_true", help="direct calls of grpclib and grpcio, too")
    parsed = parser.parse_args()
    options = options_of(parsed)
    anchor = parsed.against if parsed.against in (None, "envoy", DAPRD) else AGAINST
    names = ["direct", "meshnode", *filter(None, [anchor]), *(BASELINES if parsed.baselines else ())]
    rows = chosen(options, names)
    if "envoy" in rows:
        envoy_program()  # before anything is started
    if DAPRD in rows:
        daprd_program()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshnode-bench-")))
        results = measure(_subjects(stack, folder, rows, parsed, options), options)
    pairs = [Pair("meshnode", "direct", cpu=False)]
    if anchor is not None:
        pairs += [Pair("meshnode", anchor), Pair(anchor, "direct", cpu=False)]
    publish("proxy", results, pairs, options, "per hop")


def _subjects(
    stack: ExitStack, folder: Path, rows: list[str], parsed: argparse.Namespace, options: Options
) -> list[Subject]:
    request = echo_request(options.size, varying=options.varying, metadata=[("dapr-app-id", parsed.app_id)])
    app, address = stack.enter_context(running_app("raw", options.size))
    subjects = direct_subjects(stack, rows, request, app, address, options.size)
    if "meshnode" in rows:
        own = Request(
            request.path, request.messages, [("dapr-app-id", "echo")], request.varying, options.size
        )
        front, behind = stack.enter_context(running_chain(folder, address))
        pids = {"node A": front.program.pid, "node B": behind.program.pid, "app": app.pid}
        subjects.append(Subject("meshnode", front.address, own, pids, ("node A", "node B")))
    if "envoy" in rows:
        programs, first = stack.enter_context(running_envoys(folder, address))
        pids = {program.role: program.pid for program in programs} | {"app": app.pid}
        subjects.append(Subject("envoy", first, request, pids, ("envoy A", "envoy B")))
    if DAPRD in rows:
        own = Request(
            request.path, request.messages, [("dapr-app-id", "echo")], request.varying, options.size
        )
        programs, first = stack.enter_context(running_daprds(folder, address))
        pids = {program.role: program.pid for program in programs} | {"app": app.pid}
        subjects.append(Subject(DAPRD, first, own, pids, ("daprd A", "daprd B")))
    if AGAINST in rows:
        subjects.append(against(parsed, AGAINST, request))
    return subjects


if __name__ == "__main__":
    run_script(main)
