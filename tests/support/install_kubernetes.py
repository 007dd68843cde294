"""A Kubernetes API server, from the Go module proxy into `.tools/kubernetes`. It needs an etcd behind it.

`go install` refuses the API server, for its `go.mod` replaces modules by folders of its repository; the
module beside this one requires the published ones instead. Building takes some minutes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from support.install_tools import TOOLS, need, run

__all__ = ["find_kube_apiserver", "kubernetes"]

FOLDER = TOOLS / "kubernetes"
MODULE = Path(__file__).with_name("kubernetes")


def find_kube_apiserver() -> str | None:
    """The program, or None when this machine has none."""
    own = FOLDER / "kube-apiserver"
    return str(own) if own.exists() else shutil.which("kube-apiserver")


def kubernetes() -> None:
    if find_kube_apiserver() is None:
        need("go")
        FOLDER.mkdir(parents=True, exist_ok=True)
        new = FOLDER / "kube-apiserver.new"  # what was left half built would pass for installed
        flags = {"GOFLAGS": "-mod=readonly -buildvcs=false"}
        run(["go", "build", "-o", str(new), "k8s.io/kubernetes/cmd/kube-apiserver"], cwd=MODULE, env=flags)
        new.rename(FOLDER / "kube-apiserver")
