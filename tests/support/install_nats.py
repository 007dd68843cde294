"""nats-server, from the Go module proxy into `.tools/bin`."""

from __future__ import annotations

import shutil

from support.install_tools import TOOLS, need, run

__all__ = ["nats"]

NATS_SERVER = "github.com/nats-io/nats-server/v2@v2.14.9"


def nats() -> None:
    if (TOOLS / "bin" / "nats-server").exists() or shutil.which("nats-server"):
        return
    need("go")
    run(["go", "install", NATS_SERVER], env={"GOBIN": str(TOOLS / "bin"), "GOFLAGS": "-mod=mod"})
