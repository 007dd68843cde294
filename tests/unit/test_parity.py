"""Our wire contract is Dapr's: every message, field, enum value and method, with names, numbers and types.

What is compared with: the descriptors in the PyPI packages `dapr`, `grpcio-health-checking`,
`grpcio-reflection` and `googleapis-common-protos`; for the packages that nobody publishes in Python, the
facts in wire_facts.txt.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import dapr.proto.common.v1
import dapr.proto.runtime.v1
import google.rpc.error_details_pb2
import google.rpc.status_pb2
import grpc_health.v1.health_pb2
import grpc_reflection.v1alpha.reflection_pb2
import pytest
from google.protobuf.descriptor_pb2 import (  # type: ignore[attr-defined]
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

import meshnode.wire
from meshnode.wire import descriptors

Facts = dict[str, frozenset[str]]

WIRE = Path(meshnode.wire.__file__).parent
OURS = FileDescriptorSet.FromString((WIRE / "descriptors.binpb").read_bytes())
TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}


def facts_of(files: Iterable[Any]) -> Facts:
    """What a set of files declares, in the lines of wire_facts.txt, keyed by their headings."""
    found: dict[str, frozenset[str]] = {}
    for file in files:
        for service in file.service:
            found[f"service {file.package}.{service.name}"] = frozenset(methods(service))
        for message in file.message_type:
            found |= in_message(message, file.package)
        for enum in file.enum_type:
            found |= in_enum(enum, file.package)
    return found


def methods(service: ServiceDescriptorProto) -> Iterator[str]:
    for method in service.method:
        takes = ("stream " if method.client_streaming else "") + method.input_type.lstrip(".")
        gives = ("stream " if method.server_streaming else "") + method.output_type.lstrip(".")
        yield f"{method.name}({takes}) -> {gives}" + (" deprecated" if method.options.deprecated else "")


def in_message(message: DescriptorProto, scope: str) -> Facts:
    name = f"{scope}.{message.name}"
    entries = {f".{name}.{inner.name}": inner for inner in message.nested_type if inner.options.map_entry}
    found = {f"message {name}": frozenset(field_line(field, message, entries) for field in message.field)}
    for enum in message.enum_type:
        found |= in_enum(enum, name)
    for inner in message.nested_type:
        if not inner.options.map_entry:
            found |= in_message(inner, name)
    return found


def in_enum(enum: EnumDescriptorProto, scope: str) -> Facts:
    values = frozenset(f"{value.name}={value.number}" for value in enum.value)
    return {f"enum {scope}.{enum.name}": values}


def field_line(field: FieldDescriptorProto, message: DescriptorProto, entries: dict[str, Any]) -> str:
    kind = field.type_name.lstrip(".") or TYPES[field.type]
    if entry := entries.get(field.type_name):
        key, value = (part.type_name.lstrip(".") or TYPES[part.type] for part in entry.field)
        kind = f"map<{key}, {value}>"
    elif field.label == FieldDescriptorProto.LABEL_REPEATED:
        kind = f"repeated {kind}"
    line = f"{field.number} {field.name}: {kind}"
    if field.proto3_optional:
        line += " (optional)"
    elif field.HasField("oneof_index"):
        line += f" (oneof {message.oneof_decl[field.oneof_index].name})"
    if field.json_name and field.json_name != camel(field.name):
        line += f" json={field.json_name}"
    if field.options.HasField("packed"):
        line += f" packed={field.options.packed}"
    return line + (" deprecated" if field.options.deprecated else "")


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def our_facts(package: str) -> Facts:
    return facts_of(file for file in OURS.file if file.package == package)


def published(*modules: Any) -> Facts:
    protos = []
    for module in modules:
        proto = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(proto)
        protos.append(proto)
    return facts_of(protos)


def sdk(package: Any) -> Facts:
    names = [found.name for found in pkgutil.iter_modules(package.__path__) if found.name.endswith("_pb2")]
    return published(*(importlib.import_module(f"{package.__name__}.{name}") for name in names))


def written(package: str) -> Facts:
    """The facts of one package in wire_facts.txt."""
    found: dict[str, set[str]] = {}
    heading = ""
    for line in Path(__file__).with_name("wire_facts.txt").read_text().splitlines():
        if line.startswith("enum "):
            name, values = line.split(": ")
            found[name] = set(values.split(", "))
        elif line.startswith(("message ", "service ")):
            heading = line
            found[heading] = set()
        elif line.startswith("  "):
            found[heading].add(line.strip())
    return {name: frozenset(lines) for name, lines in found.items() if name.split(" ")[1].startswith(package)}


def rename(facts: Facts, old: str, new: str) -> Facts:
    return {
        key.replace(old, new): frozenset(line.replace(old, new) for line in lines)
        for key, lines in facts.items()
    }


CASES = [
    ("dapr.proto.common.v1", lambda: sdk(dapr.proto.common.v1)),
    ("dapr.proto.runtime.v1", lambda: sdk(dapr.proto.runtime.v1)),
    ("dapr.proto.components.v1", lambda: written("dapr.proto.components.v1")),
    ("dapr.proto.internals.v1", lambda: written("dapr.proto.internals.v1")),
    ("dapr.proto.scheduler.v1", lambda: written("dapr.proto.scheduler.v1")),
    ("grpc.health.v1", lambda: published(grpc_health.v1.health_pb2)),
    (
        "grpc.reflection.v1",  # published as v1alpha only; the two differ in nothing but the package
        lambda: rename(published(grpc_reflection.v1alpha.reflection_pb2), ".v1alpha.", ".v1."),
    ),
    ("google.rpc", lambda: published(google.rpc.status_pb2, google.rpc.error_details_pb2)),
]


@pytest.mark.parametrize(("package", "theirs"), CASES, ids=[package for package, _ in CASES])
def test_declares_what_they_declare(package: str, theirs: Any) -> None:
    expected, ours = theirs(), our_facts(package)
    assert len(expected) >= 5
    assert ours.keys() == expected.keys()
    assert {name: lines for name, lines in ours.items() if lines != expected[name]} == {}


def test_no_package_of_the_sdk_is_left_out() -> None:
    packages = {f"dapr.proto.{found.name}.v1" for found in pkgutil.iter_modules(dapr.proto.__path__)}
    assert packages <= {package for package, _ in CASES}


def messages() -> Iterator[tuple[str, str, DescriptorProto]]:
    """Package, name below it, and descriptor of every message of ours."""

    def walk(message: DescriptorProto, prefix: str) -> Iterator[tuple[str, DescriptorProto]]:
        yield prefix + message.name, message
        for inner in message.nested_type:
            if not inner.options.map_entry:
                yield from walk(inner, f"{prefix}{message.name}.")

    for file in OURS.file:
        for top in file.message_type:
            for name, message in walk(top, ""):
                yield file.package, name, message


@pytest.mark.parametrize(
    ("package", "name", "message"), [pytest.param(*case, id=case[1]) for case in messages()]
)
def test_generated_class_has_every_field(package: str, name: str, message: DescriptorProto) -> None:
    cls = class_of(f".{package}.{name}")
    numbers = {meta.number for meta in cls._betterproto.meta_by_field_name.values()}
    assert numbers == {field.number for field in message.field}
    types = {meta.number: meta.proto_type for meta in cls._betterproto.meta_by_field_name.values()}
    for field in message.field:
        assert types[field.number] in (TYPES[field.type], "map")


SERVICES = [(file.package, service) for file in OURS.file for service in file.service]


@pytest.mark.parametrize(
    ("package", "service"), [pytest.param(package, service, id=service.name) for package, service in SERVICES]
)
def test_generated_base_serves_every_method(package: str, service: ServiceDescriptorProto) -> None:
    module = importlib.import_module(f"meshnode.wire.{package}")
    mapping = getattr(module, f"{service.name}Base")().__mapping__()
    assert set(mapping) == {f"/{package}.{service.name}/{method.name}" for method in service.method}
    for method in service.method:
        handler = mapping[f"/{package}.{service.name}/{method.name}"]
        assert handler.cardinality.value == (method.client_streaming, method.server_streaming)
        assert handler.request_type is class_of(method.input_type)
        assert handler.reply_type is class_of(method.output_type)
        assert descriptors.file_of(f"{package}.{service.name}.{method.name}") is not None


def class_of(name: str) -> Any:
    """The generated class of a message, named in full with a leading dot."""
    from meshnode.wire.message_pool import default_message_pool

    for file in OURS.file:
        if name.startswith(f".{file.package}."):
            importlib.import_module(f"meshnode.wire.{file.package}")
    return default_message_pool.url_to_type[f"type.googleapis.com/{name[1:]}"]
