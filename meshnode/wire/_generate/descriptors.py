"""From proto/ to descriptors, with the protoc that grpcio-tools carries: nothing else is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

__all__ = ["WELL_KNOWN", "DescriptorError", "describe", "sources"]

# Of google.protobuf, what our own files import and what travels inside google.protobuf.Any.
WELL_KNOWN = tuple(
    f"google/protobuf/{name}.proto"
    for name in ("any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers")
)


class DescriptorError(Exception):
    """protoc refused the sources; it has said why on standard error."""


def sources(root: Path) -> list[str]:
    """The .proto files under `root`, by the name they import each other with."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.proto"))


def describe(root: Path, names: Iterable[str]) -> bytes:
    """The files and all they import as an encoded google.protobuf.FileDescriptorSet, comments included."""
    include = files("grpc_tools").joinpath("_proto")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "set")
        status = protoc.main(
            [
                "protoc",
                f"-I{root}",
                f"-I{include}",
                "--include_imports",
                "--include_source_info",
                f"--descriptor_set_out={target}",
                *names,
            ]
        )
        if status != 0:
            raise DescriptorError("protoc failed")
        return target.read_bytes()
