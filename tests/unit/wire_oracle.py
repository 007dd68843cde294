"""The oracle of the codec tests, protobuf's C implementation, and a scribe that writes bytes for both."""

# mypy: disable-error-code="no-untyped-call"
# protobuf's own code has no types.

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any

import attrs
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet  # type: ignore[attr-defined]
from google.protobuf.message import DecodeError as OracleError

import meshnode.wire
from meshnode.wire import DecodeError
from meshnode.wire.message_pool import default_message_pool

WIRE_TYPES = {1: 1, 2: 5, 3: 0, 4: 0, 5: 0, 6: 1, 7: 5, 8: 0, 9: 2, 11: 2, 12: 2, 13: 0, 14: 0, 15: 5, 16: 1}
WIRE_TYPES |= {17: 0, 18: 0}


@attrs.frozen
class Pair:
    """A message type, as the oracle has it and as we do."""

    descriptor: Descriptor
    oracle: Any
    ours: Any


def committed() -> bytes:
    """The descriptors of proto/."""
    return (Path(meshnode.wire.__file__).parent / "descriptors.binpb").read_bytes()


def load_pairs(descriptor_set: bytes) -> dict[str, Pair]:
    """Every message of the files, by its full name."""
    files = {file.name: file for file in FileDescriptorSet.FromString(descriptor_set).file}
    pool = descriptor_pool.DescriptorPool()

    def add(name: str) -> None:
        file = files.pop(name, None)
        if file is not None:
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)
            importlib.import_module(f"meshnode.wire.{file.package}")

    for name in list(files):
        add(name)
    pairs = {}
    for url, cls in default_message_pool.url_to_type.items():
        name = url.rpartition("/")[2]
        try:
            found = pool.FindMessageTypeByName(name)
        except KeyError:
            continue  # of files that another test has loaded
        pairs[name] = Pair(found, message_factory.GetMessageClass(found), cls)
    return pairs


def settle(message: Any) -> Any:
    """Change the well-known types in a message to what is left of them in a plain Python value: whole
    microseconds, and no unknown fields.
    """
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = list(value.values()) if field.message_type.fields_by_name["value"].message_type else []
        else:
            inner = value if field.is_repeated else [value]
        for part in inner:
            settle(part)
            settle_known(part)
    return message


def settle_known(message: Any) -> None:
    kind = message.DESCRIPTOR.full_name
    if kind in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        timestamp = kind.endswith("Timestamp")
        fraction = message.nanos // 1000 if timestamp or message.nanos >= 0 else -(-message.nanos // 1000)
        whole = message.seconds * 1_000_000 + fraction
        sign = -1 if whole < 0 and not timestamp else 1
        seconds, microseconds = divmod(whole * sign, 1_000_000)
        message.seconds, message.nanos = sign * seconds, sign * microseconds * 1000
        message.DiscardUnknownFields()
    elif message.DESCRIPTOR.file.name == "google/protobuf/wrappers.proto":
        message.DiscardUnknownFields()


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def delimited(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


class Scribe:
    """Writes encodings that look like messages of a type, in all the ways the wire format allows, and some it
    does not.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def message(self, descriptor: Descriptor, depth: int = 4) -> bytes:
        parts = [self.field(descriptor, depth) for _ in range(self.chance.choice((0, 1, 2, 3, 5, 8)))]
        return b"".join(parts)

    def field(self, descriptor: Descriptor, depth: int) -> bytes:
        dice = self.chance.random()
        if descriptor.fields and depth > 0 and dice < 0.9:
            return self.known(self.chance.choice(list(descriptor.fields)), depth)
        number = self.chance.choice((1, 2, 3, 15, 16, 100, 2**28, 2**29 - 1))
        if dice < 0.96:
            kind = self.chance.choice((0, 1, 2, 5))
            return self.padded(number << 3 | kind) + self.payload(kind, None, 0)
        if dice < 0.98:
            group = self.message(descriptor, depth - 1) if depth > 0 else b""
            return varint(number << 3 | 3) + group + varint(number << 3 | 4)
        return self.chance.randbytes(self.chance.randrange(3))

    def known(self, field: FieldDescriptor, depth: int) -> bytes:
        kind = WIRE_TYPES[field.type]
        if field.is_repeated and self.chance.random() < 0.5:
            kind = 2
        if self.chance.random() < 0.03:
            kind = self.chance.choice((0, 1, 2, 5))
        return self.padded(field.number << 3 | kind) + self.payload(kind, field, depth)

    def payload(self, kind: int, field: FieldDescriptor | None, depth: int) -> bytes:
        if kind == 0:
            return self.padded(self.number())
        if kind in (1, 5):
            return self.chance.randbytes(8 if kind == 1 else 4)
        if field is not None and field.message_type is not None:
            content = self.message(field.message_type, depth - 1)
        elif field is not None and WIRE_TYPES[field.type] != 2:
            count = self.chance.randrange(4)
            content = b"".join(self.payload(WIRE_TYPES[field.type], None, 0) for _ in range(count))
        else:
            content = self.text()
        return self.padded(len(content)) + content

    def number(self) -> int:
        edges = (0, 1, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
        dice = self.chance.random()
        if dice < 0.4:
            return self.chance.randrange(200)
        return (
            self.chance.choice(edges) if dice < 0.6 else self.chance.getrandbits(self.chance.randrange(1, 65))
        )

    def text(self) -> bytes:
        dice = self.chance.random()
        if dice < 0.05:
            return self.chance.randbytes(self.chance.randrange(4))
        return "é€😀\0".encode() if dice < 0.1 else b"abc" * self.chance.randrange(60 if dice < 0.2 else 3)

    def padded(self, value: int) -> bytes:
        """A varint, now and then a byte longer than it need be."""
        out = varint(value)
        if len(out) < 5 and self.chance.random() < 0.03:
            out = out[:-1] + bytes((out[-1] | 128, 0))
        return out

    def damaged(self, encoded: bytes) -> bytes:
        """Cut short, or with one byte changed."""
        if not encoded:
            return self.chance.randbytes(2)
        at = self.chance.randrange(len(encoded))
        if self.chance.random() < 0.5:
            return encoded[:at]
        return encoded[:at] + self.chance.randbytes(1) + encoded[at + 1 :]


def agree(pair: Pair, encoded: bytes) -> bool:
    """Check that we do with the bytes what the oracle does. True when both took them."""
    try:
        theirs = pair.oracle.FromString(encoded)
    except OracleError:
        with pytest.raises(DecodeError):
            pair.ours.parse(encoded)
        return False
    try:
        ours = pair.ours.parse(encoded)
    except DecodeError as error:
        assert "field number 0" in str(error) or "is out of range" in str(error)  # noqa: PT017
        return False
    if "nan" in str(theirs):
        return True  # which of the many NaNs it is does not survive Python's float
    canonical = settle(theirs).SerializeToString(deterministic=True)
    again = pair.oracle.FromString(bytes(ours))
    assert again.SerializeToString(deterministic=True) == canonical
    # Maps come in the oracle's order now, so our encoding of it is the same to the byte.
    assert bytes(pair.ours.parse(canonical)) == canonical
    assert pair.ours.parse(bytes(ours)) == ours
    return True
