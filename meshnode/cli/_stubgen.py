"""Typed clients from a user's .proto files: betterproto2's compiler, its templates, and ours for trio.

The asyncio flavour is what betterproto2 generates, for grpclib's channel. The trio flavour has the same
messages; its stubs stand on `meshnode.wire`'s base, for `meshnode.transport`'s channel: a call that streams
its answers is an async context manager there.

Needs the packages grpcio-tools and betterproto2-compiler; only `stubs` imports this module.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import betterproto2_compiler
import jinja2
from betterproto2_compiler.lib.google.protobuf import FileDescriptorSet
from betterproto2_compiler.lib.google.protobuf.compiler import CodeGeneratorRequest
from betterproto2_compiler.plugin import parser
from betterproto2_compiler.plugin.models import OutputTemplate
from grpc_tools import protoc

from meshnode.cli._errors import CliError
from meshnode.wire._generate.classes import tidy

__all__ = ["generate"]

_OURS = Path(__file__).parent / "templates"
_THEIRS = Path(betterproto2_compiler.__file__).parent / "templates"
_PROTOC_INCLUDES = Path(protoc.__file__).parent / "_proto"


def generate(sources: Sequence[Path], includes: Sequence[Path], flavour: str) -> dict[str, str]:
    """The generated modules by their path below the output folder."""
    descriptors = FileDescriptorSet.parse(_describe(sources, includes))
    request = CodeGeneratorRequest(
        file_to_generate=[file.name for file in descriptors.file],
        parameter="client_generation=async,server_generation=async",
        proto_file=descriptors.file,
    )
    with (
        mock.patch.object(parser, "outputfile_compiler", _renderer(flavour)),
        mock.patch.object(parser, "print", create=True),
    ):
        response = parser.generate_code(request)
    modules = {file.name: file.content for file in response.file if file.content}
    # The output folder is a package too: the modules share the message pool at its top.
    for name in list(modules):
        for folder in Path(name).parents:
            modules.setdefault((folder / "__init__.py").as_posix(), "")
    return modules


def _describe(sources: Sequence[Path], includes: Sequence[Path]) -> bytes:
    """Compile to descriptors; raises `CliError` with what protoc said."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors"
        roots = [*includes, _PROTOC_INCLUDES]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", "--include_imports", "--include_source_info"),
                *(f"-I{root}" for root in roots),
                f"--descriptor_set_out={target}",
                *map(str, sources),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CliError(f"protoc refused the files:\n{done.stderr.strip()}")
        return target.read_bytes()


def _renderer(flavour: str) -> Callable[[OutputTemplate], str]:
    folders = [_OURS, _THEIRS] if flavour == "trio" else [_THEIRS]
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )

    def render(output_file: OutputTemplate) -> str:
        names: list[str] = []

        def add_to_all(name: str) -> str:
            names.append(name)
            return name

        environment.filters["add_to_all"] = add_to_all
        # The body comes first: rendering it collects the names that the header exports.
        body = environment.get_template("template.py.j2").render(output_file=output_file)
        header = environment.get_template("header.py.j2").render(
            output_file=output_file, version=version("betterproto2_compiler"), all=names
        )
        if flavour == "trio":
            header += environment.get_template("imports.py.j2").render()
        return tidy(f"{header}\n{body}")

    return render
