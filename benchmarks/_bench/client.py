"""The client program: `python -m _bench.client LIBRARY`, with LIBRARY `meshnode` or `grpcio`.

One order per line on stdin. For each it warms up, says `ready`, waits for a line, measures, and answers with
the figures; all in JSON. It ends when stdin does.
"""

from __future__ import annotations

import json
import sys

from _bench.measurement import Engine, Order

__all__ = ["main"]


def main() -> None:
    """Serve orders."""
    engine = _engine(sys.argv[1])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        recorder = engine(Order.from_json(json.loads(line)), _gate)
        print(json.dumps(recorder.to_json()), flush=True)


def _gate() -> None:
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()


def _engine(library: str) -> Engine:
    if library == "grpcio":
        from _bench.client_grpcio import measure as grpcio

        return grpcio
    from _bench.client_meshnode import measure

    return measure


if __name__ == "__main__":
    main()
