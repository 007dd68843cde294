"""HashiCorp Consul 1.14, from the Go module proxy into `.tools/consul`: a line under the Mozilla
licence, which newer ones are not.

`go install` refuses it, for its `go.mod` replaces modules by folders of its repository; the module beside
this one requires the published ones instead. Building takes some minutes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from support.install_tools import TOOLS, need, run

__all__ = ["consul", "find_consul"]

FOLDER = TOOLS / "consul"
MODULE = Path(__file__).with_name("consul")


def find_consul() -> str | None:
    """The program, or None when this machine has none."""
    own = FOLDER / "consul"
    return str(own) if own.exists() else shutil.which("consul")


def consul() -> None:
    if find_consul() is not None:
        return
    need("go")
    FOLDER.mkdir(parents=True, exist_ok=True)
    new = FOLDER / "consul.new"  # what was left half built would pass for installed
    flags = {"GOFLAGS": "-mod=readonly -buildvcs=false"}
    run(["go", "build", "-o", str(new), "github.com/hashicorp/consul"], cwd=MODULE, env=flags)
    new.rename(FOLDER / "consul")
