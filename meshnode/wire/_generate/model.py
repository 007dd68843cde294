"""Messages as the codec generator sees them: Python names, and per field what its code depends on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

import attrs
from betterproto2_compiler.compile.naming import pythonize_class_name, pythonize_field_name
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet  # type: ignore[attr-defined]

__all__ = ["ClassRef", "Field", "File", "Message", "Scalar", "codec_module", "load_files"]

_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}

# Fields of these types hold a plain value in betterproto2's classes; how to get from one to the other.
_WRAPPED = {
    "google.protobuf.Timestamp": "datetime",
    "google.protobuf.Duration": "timedelta",
    **dict.fromkeys(
        (
            f"google.protobuf.{name}Value"
            for name in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
        ),
        "scalar",
    ),
}


@attrs.frozen
class Scalar:
    """How one scalar type travels: its wire type, and for the fixed ones the struct code and width."""

    wire_type: int
    code: str = ""
    width: int = 0


SCALARS = {
    **dict.fromkeys(("int32", "int64", "uint32", "uint64", "sint32", "sint64", "bool", "enum"), Scalar(0)),
    "double": Scalar(1, "d", 8),
    "fixed64": Scalar(1, "Q", 8),
    "sfixed64": Scalar(1, "q", 8),
    **dict.fromkeys(("string", "bytes", "message"), Scalar(2)),
    "float": Scalar(5, "f", 4),
    "fixed32": Scalar(5, "I", 4),
    "sfixed32": Scalar(5, "i", 4),
}


@attrs.frozen
class ClassRef:
    """A generated class: the package it lies in, its name, and the module with its codec (none for enums)."""

    package: str
    name: str
    codec: str


@attrs.frozen
class Field:
    """One field. For a map, `key` and `value` are its entry's fields."""

    number: int
    name: str
    type: str
    repeated: bool
    # None when unset, rather than a default value.
    nullable: bool
    # The other fields of its oneof.
    rivals: tuple[str, ...] = ()
    target: ClassRef | None = None
    # How a well-known type is held as a plain Python value: datetime, timedelta or scalar.
    wrapped: str | None = None
    key: Field | None = None
    value: Field | None = None

    @property
    def scalar(self) -> Scalar:
        """How its values travel."""
        return SCALARS[self.type]

    @property
    def packable(self) -> bool:
        """Whether repeated values can share one length-delimited field, as they do when we write them."""
        return self.scalar.wire_type != 2

    @property
    def tag(self) -> int:
        """The tag of a single value."""
        return self.number << 3 | self.scalar.wire_type


@attrs.frozen
class Message:
    """One message, its fields in the order of their numbers."""

    ref: ClassRef
    fields: tuple[Field, ...]


@attrs.frozen
class File:
    """One .proto file, whose messages share a codec module."""

    name: str
    package: str
    codec: str
    messages: tuple[Message, ...]


def load_files(descriptor_set: bytes) -> list[File]:
    """The files of an encoded descriptor set that declare messages."""
    protos = FileDescriptorSet.FromString(descriptor_set).file
    pool = descriptor_pool.DescriptorPool()
    for proto in protos:
        pool.Add(proto)
    files = (_file(pool.FindFileByName(proto.name)) for proto in protos)
    return [file for file in files if file.messages]


def _file(file: FileDescriptor) -> File:
    messages = [_message(found) for top in file.message_types_by_name.values() for found in _nested(top)]
    return File(file.name, file.package, codec_module(file.package, file.name), tuple(messages))


def _nested(message: Descriptor) -> Iterator[Descriptor]:
    yield message
    for inner in message.nested_types:
        if not inner.GetOptions().map_entry:
            yield from _nested(inner)


def _message(message: Descriptor) -> Message:
    fields = sorted(message.fields, key=lambda field: field.number)
    return Message(_class_ref(message), tuple(_field(field) for field in fields))


def _field(field: FieldDescriptor) -> Field:
    name = pythonize_field_name(field.name)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = (_field(entry.fields_by_name[part]) for part in ("key", "value"))
        return Field(field.number, name, "message", True, False, key=key, value=value)
    oneof = field.containing_oneof
    rivals = (
        ()
        if oneof is None
        else (pythonize_field_name(other.name) for other in oneof.fields if other is not field)
    )
    target = field.message_type or field.enum_type
    return Field(
        number=field.number,
        name=name,
        type=_SCALARS[field.type],
        repeated=field.is_repeated,
        nullable=field.has_presence,
        rivals=tuple(rivals),
        target=None if target is None else _class_ref(target),
        wrapped=None if entry is None else _WRAPPED.get(entry.full_name),
    )


def _class_ref(target: Descriptor | EnumDescriptor) -> ClassRef:
    package = target.file.package
    inner = target.full_name.removeprefix(f"{package}.")
    codec = codec_module(package, target.file.name) if isinstance(target, Descriptor) else ""
    return ClassRef(package, pythonize_class_name(inner), codec)


def codec_module(package: str, file: str) -> str:
    """The codec module of a .proto file, below meshnode.wire."""
    return f"{package}._codec_{PurePosixPath(file).stem}"
