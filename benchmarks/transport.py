"""meshnode's transport alone: an echo server on it, against the same server on grpclib and grpcio.

One client process, one connection; `meshnode` is a typed handler, `raw` one that passes frames on as a proxy
does. The main column is the server's CPU time per call.

    python benchmarks/transport.py --in-flight 16 --headers same
"""

from __future__ import annotations

from contextlib import ExitStack

from _bench.echo import KINDS
from _bench.options import chosen, flags, options_of, run_script
from _bench.processes import python, running
from _bench.report import Pair, publish
from _bench.requests import echo_request
from _bench.rounds import Subject, measure

_STARTING = 30.0  # seconds


def main() -> None:
    options = options_of(flags(__doc__, rate="2000").parse_args())
    request = echo_request(options.size, varying=options.varying)
    with ExitStack() as stack:
        subjects = []
        for kind in chosen(options, KINDS):
            server = stack.enter_context(running(kind, python("_bench.echo", kind)))
            address = server.line(_STARTING)["address"]
            subjects.append(Subject(kind, address, request, {"server": server.pid}, ("server",)))
        results = measure(subjects, options)
    pairs = [Pair("meshnode", kind) for kind in KINDS if kind != "meshnode"]
    publish("transport", results, pairs, options, "of the server")


if __name__ == "__main__":
    run_script(main)
