"""Classes, stubs and service bases: betterproto2's compiler models them, our template renders them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jinja2
from betterproto2_compiler.lib.google.protobuf import (
    FieldDescriptorProtoType,
    FileDescriptorProto,
    FileDescriptorSet,
    SourceCodeInfo,
)
from betterproto2_compiler.lib.google.protobuf.compiler import CodeGeneratorRequest
from betterproto2_compiler.plugin import parser
from betterproto2_compiler.plugin.models import FieldCompiler, MapEntryCompiler, OutputTemplate

from meshnode.wire._generate.model import codec_module

__all__ = ["render_classes", "tidy"]

_TEMPLATES = Path(__file__).parent / "templates"


def render_classes(descriptor_set: bytes) -> dict[str, str]:
    """Every generated module, by its path below the output folder."""
    files = FileDescriptorSet.parse(descriptor_set).file
    for file in files:
        _drop_foreign_comments(file)
        _drop_deprecated_fields(file)
    request = CodeGeneratorRequest(
        file_to_generate=[file.name for file in files],
        parameter="client_generation=async,server_generation=async",
        proto_file=files,
    )
    with (
        mock.patch.object(parser, "outputfile_compiler", _renderer()),
        mock.patch.object(parser, "print", create=True),
    ):
        response = parser.generate_code(request)
    modules = {file.name: file.content for file in response.file if file.content}
    # The compiler leaves out the packages that happen to exist below the current directory.
    for name in list(modules):
        for folder in Path(name).parents[:-1]:
            modules.setdefault(f"{folder.as_posix()}/__init__.py", "")
    return modules


def _drop_foreign_comments(file: FileDescriptorProto) -> None:
    """What Google wrote about its types stays with its sources."""
    if file.package == "google.protobuf":
        file.source_code_info = SourceCodeInfo()


def _drop_deprecated_fields(file: FileDescriptorProto) -> None:
    """A node must fill such fields for older clients, without a warning each time."""
    for message in file.message_type:
        for field in message.field:
            if field.options is not None:
                field.options.deprecated = False


def _renderer() -> Callable[[OutputTemplate], str]:
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    environment.globals |= {"parameter": _parameter, "initial": _initial}
    template = environment.get_template("module.py.j2")

    def render(output_file: OutputTemplate) -> str:
        code = template.render(
            output_file=output_file,
            names=_exported(output_file),
            blocks=_blocks(output_file),
            codecs={file.name: codec_module(file.package, file.name) for file in output_file.input_files},
        )
        return tidy(code)

    return render


# The values of unset fields. Everything else starts as None, which `__init__` replaces where it must.
_DEFAULTS = {"str": '""', "bytes": 'b""', "bool": "False", "int": "0", "float": "0.0"}


def _parameter(field: FieldCompiler) -> str:
    """A field as a parameter of its message's `__init__`.

    Written out, and not left to `dataclass`, because that compiles every `__init__` at every start.
    """
    annotation = field.annotation
    nullable = field.optional and not _is_container(field)
    default = "None" if _is_container(field) or nullable else _DEFAULTS.get(field.py_type, "None")
    if default == "None" and not nullable:
        annotation += " | None"
    return f'{field.py_name}: "{annotation}" = {default}'


def _initial(field: FieldCompiler) -> str:
    """What `__init__` makes of that parameter."""
    name = field.py_name
    if _is_container(field):
        return f"{'{}' if isinstance(field, MapEntryCompiler) else '[]'} if {name} is None else {name}"
    if field.optional or field.field_type != FieldDescriptorProtoType.ENUM:
        return name
    return f"{field.py_type}(0) if {name} is None else {name}"


def _is_container(field: FieldCompiler) -> bool:
    return field.repeated or isinstance(field, MapEntryCompiler)


def _exported(output_file: OutputTemplate) -> list[str]:
    names = [enum.py_name for enum in output_file.enums.values()]
    names += [message.py_name for message in output_file.messages.values()]
    for service in output_file.services.values():
        names += [f"{service.py_name}Stub", f"{service.py_name}Base"]
    return names


def _blocks(output_file: OutputTemplate) -> dict[str, str]:
    """For each method the building block that a caller misses when nobody implements it.

    That is the file its messages are declared in, since every block has its own; else the service.
    """
    homes = {
        f".{file.package}.{message.name}": Path(file.name).stem
        for file in output_file.input_files
        for message in file.message_type
    }
    return {
        method.route: homes.get(method.proto_obj.input_type)
        or homes.get(method.proto_obj.output_type)
        or service.proto_name
        for service in output_file.services.values()
        for method in service.methods
    }


def tidy(code: str) -> str:
    """Drop the imports a module does not need, sort the rest, format."""
    for arguments in (
        ["check", "--isolated", "--select=I,F401,PIE790", "--fix", "--silent", "--line-length=110", "-"],
        ["format", "--isolated", "--line-length=110", "-"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments], input=code, encoding="utf-8", capture_output=True
        )
        if done.returncode != 0:
            raise SyntaxError(f"generated code does not parse: {done.stderr}{done.stdout}\n{code}")
        code = done.stdout
    return code
