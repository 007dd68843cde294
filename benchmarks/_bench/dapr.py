"""Dapr's own sidecar as the anchor. Imports this package's processes and what starts other programs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from _bench.others import await_port, free_port
from _bench.processes import Failure, Program, running

__all__ = ["DAPRD", "daprd_program", "running_daprd", "running_daprds"]

DAPRD = "daprd"
_TOOLS = Path(__file__).resolve().parents[2] / ".tools" / "daprd"
_NAMES = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: bench}}
spec:
  nameResolution:
    component: sqlite
    version: v1
    configuration: {{connectionString: "{file}"}}
  metric: {{enabled: false}}
"""


def daprd_program() -> str:
    """Where daprd is: on PATH, beside the interpreter, or where `make tools` builds one. Raises `Failure`."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""), str(_TOOLS)))
    found = shutil.which("daprd", path=path)
    if found is None:
        raise Failure("daprd is not installed; `make tools` builds one")
    return found


@contextmanager
def running_daprd(
    role: str,
    folder: Path,
    app_id: str,
    *,
    app: str | None = None,
    components: Mapping[str, str] | None = None,
) -> Iterator[tuple[Program, str]]:
    """One daprd, without metrics and tracing, and its address.
    `folder` holds the names of those that are to find one another.
    """
    api, internal, http, metrics, public = (free_port() for _ in range(5))
    resources = folder / role
    resources.mkdir()
    for name, text in (components or {}).items():
        (resources / f"{name}.yaml").write_text(text, encoding="utf-8")
    config = folder / f"{role}.yaml"
    config.write_text(_NAMES.format(file=folder / "daprd-names.db"), encoding="utf-8")
    command = [
        daprd_program(), "--app-id", app_id, "--mode", "standalone", "--log-level", "error",
        "--resources-path", str(resources), "--config", str(config), "--enable-metrics=false",
        "--dapr-grpc-port", str(api), "--dapr-internal-grpc-port", str(internal),
        "--dapr-http-port", str(http), "--metrics-port", str(metrics), "--dapr-public-port", str(public),
        "--dapr-listen-addresses", "127.0.0.1", "--dapr-internal-grpc-listen-address", "127.0.0.1",
    ]  # fmt: skip
    if app is not None:
        command += ["--app-port", app.rpartition(":")[2], "--app-protocol", "grpc"]
    with running(role, command, env={"DAPR_HOST_IP": "127.0.0.1"}) as program:
        await_port(program, api)
        yield program, f"127.0.0.1:{api}"


@contextmanager
def running_daprds(folder: Path, app: str) -> Iterator[tuple[list[Program], str]]:
    """Two in a row before the application `echo`, and where to call the first."""
    with ExitStack() as stack:
        behind, _ = stack.enter_context(running_daprd("daprd B", folder, "echo", app=app))
        front, address = stack.enter_context(running_daprd("daprd A", folder, "caller"))
        yield [front, behind], address
