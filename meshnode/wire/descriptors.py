"""The descriptors of proto/, for server reflection.

They are read when first asked for, from `descriptors.binpb` beside this module: an encoded
google.protobuf.FileDescriptorSet that `make generate` writes, usable as a protoset by tools like grpcurl.

May import: meshnode.wire._runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

from ._runtime import MAX_DEPTH, long_tag, size, skip

__all__ = ["file", "file_of"]

# What is wanted of google.protobuf.FileDescriptorProto and the messages inside it, by field number. Each of
# those messages has its name in field 1.
_NAME = 1
_PACKAGE = 2
_IMPORT = 3
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_NESTED_MESSAGE, _NESTED_ENUM = 3, 4
_METHOD = 2

_Index: TypeAlias = "tuple[dict[str, bytes], dict[str, str]]"


def file(name: str) -> list[bytes] | None:
    """The encoded descriptors of a .proto file and of all it imports; None for an unknown file."""
    files, _ = _index()
    if name not in files:
        return None
    found: dict[str, bytes] = {}
    wanted = [name]
    while wanted:
        name = wanted.pop(0)
        if name not in found:
            found[name] = files[name]
            wanted += [value.decode() for number, value in _fields(files[name]) if number == _IMPORT]
    return list(found.values())


def file_of(symbol: str) -> list[bytes] | None:
    """As `file`, for the file that declares a service, method, message or enum, named in full."""
    _, symbols = _index()
    name = symbols.get(symbol)
    return None if name is None else file(name)


@cache
def _index() -> _Index:
    """All files by their names, and the file of every symbol."""
    files: dict[str, bytes] = {}
    symbols: dict[str, str] = {}
    for content in _parts(Path(__file__).with_name("descriptors.binpb").read_bytes(), 1):
        name = _text(content, _NAME)
        files[name] = content
        symbols |= dict.fromkeys(_declared(content), name)
    return files, symbols


def _declared(content: bytes) -> Iterator[str]:
    package = _text(content, _PACKAGE)
    for number, part in _fields(content):
        if number == _FILE_MESSAGE:
            yield from _in_message(package, part)
        elif number == _FILE_ENUM:
            yield _join(package, _text(part, _NAME))
        elif number == _FILE_SERVICE:
            service = _join(package, _text(part, _NAME))
            yield service
            yield from (_join(service, _text(method, _NAME)) for method in _parts(part, _METHOD))


def _in_message(scope: str, message: bytes) -> Iterator[str]:
    name = _join(scope, _text(message, _NAME))
    yield name
    for number, part in _fields(message):
        if number == _NESTED_MESSAGE:
            yield from _in_message(name, part)
        elif number == _NESTED_ENUM:
            yield _join(name, _text(part, _NAME))


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


def _text(message: bytes, wanted: int) -> str:
    return next((value.decode() for value in _parts(message, wanted)), "")


def _parts(message: bytes, wanted: int) -> Iterator[bytes]:
    return (value for number, value in _fields(message) if number == wanted)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of an encoded message."""
    at = 0
    while at < len(message):
        tag, at = long_tag(message, at)
        if tag & 7 == 2:
            length, at = size(message, at)
            yield tag >> 3, message[at : at + length]
            at += length
        else:
            at = skip(message, at, tag, MAX_DEPTH)
