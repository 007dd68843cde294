"""Installs what the test suites need besides Python packages, each by its own ecosystem's client, into
`.tools`.

What is already there is left alone; what cannot be had is named with the reason, and the tests that need it
are skipped by name. Only `redis-server` goes into the system (from its packages), and only when we run as
root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / ".tools"
H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
NPM = ROOT / "tests" / "node" / "npm_client"
GO = ROOT / "tests" / "node" / "go_client"
GO_CRYPTO = ROOT / "tests" / "node" / "go_crypto"
GO_COMPONENT = ROOT / "tests" / "node" / "go_component"


class Unavailable(Exception):
    """A tool that this machine cannot have."""


def run(command: Sequence[str], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> None:
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=900
    )
    if result.returncode:
        tail = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise Unavailable(f"`{' '.join(command)}` failed: {' '.join(tail)}")


def need(program: str) -> None:
    if shutil.which(program) is None:
        raise Unavailable(f"{program} is not installed")


def redis() -> None:
    if shutil.which("redis-server"):
        return
    need("apt-get")
    if os.geteuid() != 0:
        raise Unavailable("redis-server is not installed, and only root may install it")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=quiet)
    run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "redis-server"],
        env=quiet,
    )


def h2spec() -> None:
    if (TOOLS / "bin" / "h2spec").exists():
        return
    need("go")
    run(["go", "install", H2SPEC], env={"GOBIN": str(TOOLS / "bin"), "GOFLAGS": "-mod=mod"})


def npm_client() -> None:
    if (NPM / "node_modules" / "@dapr" / "dapr").exists():
        return
    need("npm")
    run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=NPM)


def go_client() -> None:
    need("go")
    run(["go", "build", "-o", str(TOOLS / "bin" / "go-sdk-client"), "."], cwd=GO)


def go_crypto() -> None:
    need("go")
    run(["go", "build", "-o", str(TOOLS / "bin" / "go-kit-crypto"), "."], cwd=GO_CRYPTO)


def go_component() -> None:
    need("go")
    run(["go", "build", "-o", str(TOOLS / "bin" / "go-component"), "."], cwd=GO_COMPONENT)


Installers = dict[str, Callable[[], None]]


def installers() -> tuple[Installers, Installers]:
    """By name: what is built by Go, which takes both cores of a small machine, and what is only fetched."""
    from support.install_consul import consul  # these import this module
    from support.install_daprd import daprd
    from support.install_dnsmasq import dnsmasq
    from support.install_etcd import etcd
    from support.install_kafka import kafka
    from support.install_kubernetes import kubernetes
    from support.install_mariadb import mariadb
    from support.install_mosquitto import mosquitto
    from support.install_nats import nats
    from support.install_postgres import postgres
    from support.install_rabbitmq import rabbitmq
    from support.install_secantus import secantus

    built: Installers = {
        "h2spec": h2spec,
        "Dapr's Go SDK": go_client,
        "Dapr's Go library for cryptography": go_crypto,
        "Dapr's components SDK for Go": go_component,
        "nats-server": nats,
        "Consul": consul,
        "daprd": daprd,
        "Kubernetes' API server": kubernetes,
    }
    fetched: Installers = {
        "redis-server": redis,
        "PostgreSQL": postgres,
        "dnsmasq": dnsmasq,
        "etcd": etcd,
        "MariaDB": mariadb,
        "mosquitto": mosquitto,
        "RabbitMQ": rabbitmq,
        "@dapr/dapr for Node.js": npm_client,
        "Apache Kafka": kafka,
        "SecantusDB": secantus,
    }
    return built, fetched


def install(tools: Installers) -> None:
    """One after the other."""
    for name, one in tools.items():
        try:
            one()
        except (Unavailable, OSError, subprocess.TimeoutExpired) as error:
            print(f"not available: {name}: {error}", file=sys.stderr, flush=True)
        else:
            print(f"available: {name}", flush=True)


def main() -> int:
    (TOOLS / "bin").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:  # the network and the compiler get in nobody's way
        list(pool.map(install, installers()))
    return 0


if __name__ == "__main__":
    # As part of its package, as the installers beside it know it: they raise its `Unavailable`.
    sys.path.insert(0, str(ROOT / "tests"))
    from support.install_tools import main as install_all

    sys.exit(install_all())
