"""The command line: one module per verb, each a client of a node's gRPC API like any other.

`main` stands here and imports next to nothing, because it is on the way to a running node: `meshnode node`
goes straight to its module, everything else (and `meshnode node --help`) goes through the click application
in `_app`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] == ["node"] and not {"--help", "-h"} & set(args):
        gc.disable()  # Nearly all that is made now stays; see meshnode.cli.node.
        from meshnode.cli.node import main as node_main

        sys.exit(node_main(args[1:]))
    from meshnode.cli._app import main as app_main

    sys.exit(app_main(args))
