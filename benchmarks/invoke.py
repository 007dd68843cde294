"""InvokeService: client -> node A -> node B -> AppCallback.OnInvoke, against calling OnInvoke directly and,
for the same payload, against a proxied call.

The main column is the CPU time of one hop: the mean of both nodes', or the application's in a direct call.

    python benchmarks/invoke.py --in-flight 16
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from _bench.against import AGAINST, add_flags, against
from _bench.answers import INVOKE, ON_INVOKE, fixed_answers, invoke_request
from _bench.dapr import DAPRD, running_daprds
from _bench.direct import BASELINES, direct_subjects
from _bench.nodes import running_app, running_chain
from _bench.options import Options, chosen, flags, options_of, run_script
from _bench.report import Pair, publish
from _bench.requests import Request, echo_request
from _bench.rounds import Subject, measure

from meshnode.wire.dapr.proto.runtime import v1 as runtime


def main() -> None:
    parser = flags(__doc__, rate="1000")
    add_flags(parser, also=DAPRD)
    parser.add_argument("--baselines", action="store_true", help="direct calls of grpclib and grpcio, too")
    parsed = parser.parse_args()
    options = options_of(parsed)
    anchor = parsed.against if parsed.against in (None, DAPRD) else AGAINST
    names = ["direct", "meshnode", "proxied", *filter(None, [anchor])]
    rows = chosen(options, [*names, *(BASELINES if parsed.baselines else ())])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshnode-bench-")))
        results = measure(_subjects(stack, folder, rows, parsed, options), options)
    pairs = [Pair("meshnode", "direct", cpu=False), Pair("meshnode", "proxied")]
    if anchor is not None:
        pairs.append(Pair("meshnode", anchor))
    publish("invoke", results, pairs, options, "per hop")


def _subjects(
    stack: ExitStack, folder: Path, rows: list[str], parsed: argparse.Namespace, options: Options
) -> list[Subject]:
    app, address = stack.enter_context(running_app("raw", options.size))
    message, reply = invoke_request(options.size), len(fixed_answers(options.size)[ON_INVOKE])
    request = Request(ON_INVOKE, [bytes(message)], [], options.varying, reply)
    subjects = direct_subjects(stack, rows, request, app, address, options.size)

    def invocation(app_id: str) -> Request:
        whole = bytes(runtime.InvokeServiceRequest(id=app_id, message=message))
        return Request(INVOKE, [whole], [], options.varying)

    if "meshnode" in rows or "proxied" in rows:
        front, behind = stack.enter_context(running_chain(folder, address))
        pids = {"node A": front.program.pid, "node B": behind.program.pid, "app": app.pid}
        hops = ("node A", "node B")
        proxied = echo_request(options.size, varying=options.varying, metadata=[("dapr-app-id", "echo")])
        for name, call in (("meshnode", invocation("echo")), ("proxied", proxied)):
            if name in rows:
                subjects.append(Subject(name, front.address, call, pids, hops))
    if DAPRD in rows:
        programs, first = stack.enter_context(running_daprds(folder, address))
        pids = {program.role: program.pid for program in programs} | {"app": app.pid}
        subjects.append(Subject(DAPRD, first, invocation("echo"), pids, ("daprd A", "daprd B")))
    if AGAINST in rows:
        subjects.append(against(parsed, AGAINST, invocation(parsed.app_id)))
    return subjects


if __name__ == "__main__":
    run_script(main)
