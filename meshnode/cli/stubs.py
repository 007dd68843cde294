"""`meshnode stubs`: typed client stubs and service bases from .proto files."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import rich_click as click

from meshnode.cli._errors import CliError
from meshnode.cli._output import Column
from meshnode.cli._verb import Verb, output

__all__ = ["command"]

_NEEDED = {
    "betterproto2_compiler": "betterproto2-compiler>=0.10.1,<0.11",
    "grpc_tools": "grpcio-tools>=1.80,<2",
}


@click.command("stubs", cls=Verb)
@click.argument(
    "protos",
    nargs=-1,
    required=True,
    metavar="PROTO...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--out",
    default="stubs",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder the packages are written to.",
)
@click.option(
    "-I",
    "--include",
    "includes",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Where imports are looked for; the folders of the files by default. May be repeated.",
)
@click.option("--flavour", type=click.Choice(["asyncio", "trio"]), default="asyncio", show_default=True,
              help="asyncio: for grpclib's Channel. trio: for meshnode.transport's.")  # fmt: skip
def command(protos: tuple[Path, ...], out: Path, includes: tuple[Path, ...], flavour: str) -> None:
    """Generate typed client stubs and service bases from PROTO files.

    A stub's calls go through the mesh when its metadata says to whom: OrdersStub(channel,
    metadata={"dapr-app-id": "order-processor"}). What is written is one package: `from stubs.orders.v1 import
    OrdersStub`.
    """
    _require_compiler()
    from meshnode.cli._stubgen import generate

    roots = includes or tuple(dict.fromkeys(path.parent for path in protos))
    modules = generate([path.absolute() for path in protos], [root.absolute() for root in roots], flavour)
    rows = []
    for name, text in sorted(modules.items()):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        rows.append({"module": str(path)})
    output().rows(rows, (Column("module", "MODULE"),))


def _require_compiler() -> None:
    missing = [requirement for module, requirement in _NEEDED.items() if find_spec(module) is None]
    if missing:
        words = " ".join(f"'{requirement}'" for requirement in missing)
        raise CliError(
            "the compiler for .proto files is not installed",
            f"install it with: {Path(sys.executable).name} -m pip install {words}",
        )
