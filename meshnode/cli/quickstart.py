"""`meshnode quickstart`: watch a quickstart run, on the embedded store, for some seconds."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

import rich_click as click

from meshnode.cli._errors import CliError, UsageProblem, suggestion
from meshnode.cli._quickstarts import find, quickstarts
from meshnode.cli._verb import Verb

__all__ = ["command"]

_LAST = {
    "service-resiliency": "checkout",
    "state-resiliency": "orders",
    "pub-sub": "checkout",
    "bindings": "batch",
}


@click.command("quickstart", cls=Verb)
@click.argument("name", default="service-resiliency")
def command(name: str) -> int:
    """Run the quickstart NAME to its end: two services, a node beside each, no other server needed."""
    source = find(name)
    if source is None:
        raise UsageProblem(
            f"there is no quickstart {name}", suggestion(name, [entry.name for entry in quickstarts()])
        )
    if find_spec("dapr") is None:
        raise CliError(
            "the quickstarts' applications use Dapr's Python SDK, which is not installed",
            f"install it with: {Path(sys.executable).name} -m pip install 'dapr[grpc]>=1.19,<2'",
        )
    from meshnode.cli import run

    with tempfile.TemporaryDirectory(prefix="meshnode-quickstart-") as folder:
        os.environ.setdefault("MESHNODE_STATE_DIR", folder)
        # `python3` in the run file shall be the Python that has meshnode and the SDK.
        os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        args = ["-f", str(source.path / "mesh.yaml"), "--until", _LAST[source.name]]
        code = run.command.main(args, prog_name="meshnode run", standalone_mode=False)
    return int(code or 0)
