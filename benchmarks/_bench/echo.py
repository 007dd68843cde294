"""An application to call: `python -m _bench.echo KIND [--port PORT] [--size BYTES]`.

KIND is the library it is written with: `meshnode` (a typed handler), `raw` (meshnode's raw calls, the
lightest application for a node to stand before), `grpclib`, `grpcio` (asyncio) or `grpcio-threads`. It says
where it listens in one line of JSON on stdout and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import json

__all__ = ["KINDS", "main"]

KINDS = ("meshnode", "raw", "grpclib", "grpcio", "grpcio-threads")


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description="An application that echoes.")
    parser.add_argument("kind", choices=KINDS, nargs="?", default="raw")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--size", type=int, default=1024, help="bytes of the payload of fixed answers")
    options = parser.parse_args()
    if options.kind in ("meshnode", "raw"):
        from _bench.echo_meshnode import serve

        serve(options.kind, options.size, options.port, _announce)
    elif options.kind == "grpclib":
        from _bench.echo_grpclib import serve as serve_grpclib

        serve_grpclib(options.size, options.port, _announce)
    else:
        from _bench.echo_grpcio import serve as serve_grpcio

        serve_grpcio(options.kind, options.size, options.port, _announce)


def _announce(port: int) -> None:
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)


if __name__ == "__main__":
    main()
