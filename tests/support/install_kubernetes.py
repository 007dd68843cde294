"""A Kubernetes API server and the etcd behind it, in `.tools/kubernetes`: the one from the Go module proxy,
the other from Debian's packages, unpacked and not installed.

`go install` refuses the API server, for its `go.mod` replaces modules by folders of its repository; the
module beside this one requires the published ones instead. Building takes some minutes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from support.install_tools import TOOLS, Unavailable, need, run

__all__ = ["find_etcd", "find_kube_apiserver", "kubernetes"]

FOLDER = TOOLS / "kubernetes"
MODULE = Path(__file__).with_name("kubernetes")


def find_kube_apiserver() -> str | None:
    """The program, or None when this machine has none."""
    own = FOLDER / "kube-apiserver"
    return str(own) if own.exists() else shutil.which("kube-apiserver")


def find_etcd() -> str | None:
    own = FOLDER / "etcd"
    return str(own) if own.exists() else shutil.which("etcd")


def kubernetes() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    if find_etcd() is None:
        _etcd()
    if find_kube_apiserver() is None:
        need("go")
        new = FOLDER / "kube-apiserver.new"  # what was left half built would pass for installed
        flags = {"GOFLAGS": "-mod=readonly -buildvcs=false"}
        run(["go", "build", "-o", str(new), "k8s.io/kubernetes/cmd/kube-apiserver"], cwd=MODULE, env=flags)
        new.rename(FOLDER / "kube-apiserver")


def _etcd() -> None:
    need("apt-get")
    need("dpkg-deb")
    with TemporaryDirectory(dir=FOLDER, prefix="etcd-") as name:
        folder = Path(name)
        try:
            run(["apt-get", "download", "-qq", "etcd-server"], cwd=folder)
        except Unavailable:
            run(["apt-get", "update", "-qq"])
            run(["apt-get", "download", "-qq", "etcd-server"], cwd=folder)
        (package,) = folder.glob("*.deb")
        run(["dpkg-deb", "-x", str(package), str(folder / "unpacked")])
        (folder / "unpacked" / "usr" / "bin" / "etcd").rename(FOLDER / "etcd")
