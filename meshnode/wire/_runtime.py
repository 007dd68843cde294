"""What the generated codec calls instead of repeating itself: long varints, unknown fields, maps.

A generated decoder reads `buffer[at]` without looking at the end of its message first. That is safe because
every decoder checks, before it returns, that it stopped exactly at its end, and because reading past the
buffer raises IndexError, which `attach` turns into DecodeError like every other way in which bytes can be
malformed. Work is bounded by the length of the input: whatever overruns its message fails in that message.

The rules are those of protobuf's C implementation, which the property tests use as oracle: varints of up to
ten bytes taken modulo 2**64, tags and lengths of up to five bytes, 100 levels of nesting with a map's entry
and an unknown group counting as one each, a known field with a foreign wire type treated as unknown.

May import: meshnode.wire._errors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

from ._errors import DecodeError

__all__ = ["MAX_DEPTH", "attach"]

MAX_DEPTH = 100
_MAX_SIZE = (1 << 31) - 1

# The encodings of 0 to 127, by value: nearly all lengths, enum values and counters.
VARINT = tuple(bytes((value,)) for value in range(128))

MessageT = TypeVar("MessageT")
Decode = Callable[..., MessageT]
Encode = Callable[[Any, list[bytes]], int]


def attach(cls: type[Any], encode: Encode, decode: Decode[Any]) -> None:
    """Give a message class its codec, in place of the slots that load the codec at first use."""

    def to_bytes(self: Any) -> bytes:
        parts: list[bytes] = []
        encode(self, parts)
        return b"".join(parts)

    def parse(data: bytes) -> Any:
        return parse_into(data, None)

    def parse_into(data: bytes, message: Any) -> Any:
        buffer = data if type(data) is bytes else bytes(data)
        try:
            return decode(buffer, 0, len(buffer), MAX_DEPTH, message)
        except DecodeError as error:
            raise DecodeError(f"not a valid {cls.__name__}: {error}") from None
        except (IndexError, struct.error) as error:
            raise DecodeError(f"not a valid {cls.__name__}: truncated") from error
        except UnicodeDecodeError as error:
            raise DecodeError(f"not a valid {cls.__name__}: {error}") from error
        except OverflowError as error:
            reason = "a Timestamp or Duration is out of range"
            raise DecodeError(f"not a valid {cls.__name__}: {reason}") from error

    cls.__bytes__ = to_bytes
    cls.parse = staticmethod(parse)
    cls._merge = staticmethod(parse_into)


# Encoding. Encoders append to a list of parts and return how many bytes they added, so that nested messages
# know their length and a large value is copied once, by the final join.


def varint(value: int) -> bytes:
    """A non-negative integer of any size."""
    if value < 128:
        return VARINT[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def int32(value: int) -> bytes:
    """A signed 32-bit value, also an enum's; a negative one takes ten bytes."""
    if not -0x80000000 <= value <= 0x7FFFFFFF:
        raise ValueError(f"{value} does not fit a signed 32-bit field")
    return varint(value & 0xFFFFFFFFFFFFFFFF)


def int64(value: int) -> bytes:
    """A signed 64-bit value; a negative one takes ten bytes."""
    if not -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        raise ValueError(f"{value} does not fit a signed 64-bit field")
    return varint(value & 0xFFFFFFFFFFFFFFFF)


def uint32(value: int) -> bytes:
    """An unsigned 32-bit value."""
    if not 0 <= value <= 0xFFFFFFFF:
        raise ValueError(f"{value} does not fit an unsigned 32-bit field")
    return varint(value)


def uint64(value: int) -> bytes:
    """An unsigned 64-bit value."""
    if not 0 <= value <= 0xFFFFFFFFFFFFFFFF:
        raise ValueError(f"{value} does not fit an unsigned 64-bit field")
    return varint(value)


def sint32(value: int) -> bytes:
    """A signed 32-bit value in zigzag order."""
    if not -0x80000000 <= value <= 0x7FFFFFFF:
        raise ValueError(f"{value} does not fit a signed 32-bit field")
    return varint(value << 1 if value >= 0 else ~(value << 1))


def sint64(value: int) -> bytes:
    """A signed 64-bit value in zigzag order."""
    if not -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        raise ValueError(f"{value} does not fit a signed 64-bit field")
    return varint(value << 1 if value >= 0 else ~(value << 1))


def string_map(tag: bytes, mapping: dict[str, str], parts: list[bytes]) -> int:
    """A map<string, string>, the one kind that nearly every request carries."""
    size = 0
    for key, value in mapping.items():
        key_bytes = key.encode()
        value_bytes = value.encode()
        entry = b"\n%b%b\x12%b%b" % (varint(len(key_bytes)), key_bytes, varint(len(value_bytes)), value_bytes)
        head = tag + varint(len(entry))
        parts.append(head)
        parts.append(entry)
        size += len(head) + len(entry)
    return size


# Decoding.


def truncated() -> DecodeError:
    """For a message that ends in the middle of a field."""
    return DecodeError("truncated")


def too_deep() -> DecodeError:
    """For messages nested below MAX_DEPTH."""
    return DecodeError(f"nested more than {MAX_DEPTH} levels deep")


def long_tag(buffer: bytes, at: int) -> tuple[int, int]:
    """The tag that starts at `at`, and where it ends."""
    tag = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        tag |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 28:
            raise DecodeError("a tag is longer than five bytes")
    if tag > 0xFFFFFFFF:
        raise DecodeError("a field number is too large")
    return tag, at


def size(buffer: bytes, at: int) -> tuple[int, int]:
    """The length that starts at `at`, and where it ends."""
    length = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        length |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 28:
            raise DecodeError("a length is longer than five bytes")
    if length > _MAX_SIZE:
        raise DecodeError("a length is larger than two gigabytes")
    return length, at


def read_uint64(buffer: bytes, at: int) -> tuple[int, int]:
    """The varint that starts at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise DecodeError("a number is longer than ten bytes")


def read_uint32(buffer: bytes, at: int) -> tuple[int, int]:
    """The low 32 bits of a varint."""
    value, at = read_uint64(buffer, at)
    return value & 0xFFFFFFFF, at


def read_int64(buffer: bytes, at: int) -> tuple[int, int]:
    """A varint as a signed 64-bit value."""
    value, at = read_uint64(buffer, at)
    return (value ^ 0x8000000000000000) - 0x8000000000000000, at


def read_int32(buffer: bytes, at: int) -> tuple[int, int]:
    """The low 32 bits of a varint as a signed value."""
    value, at = read_uint64(buffer, at)
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000, at


def read_sint64(buffer: bytes, at: int) -> tuple[int, int]:
    """A varint in zigzag order."""
    value, at = read_uint64(buffer, at)
    return (value >> 1) ^ -(value & 1), at


def read_sint32(buffer: bytes, at: int) -> tuple[int, int]:
    """The low 32 bits of a varint in zigzag order."""
    value, at = read_uint64(buffer, at)
    value &= 0xFFFFFFFF
    return (value >> 1) ^ -(value & 1), at


def read_bool(buffer: bytes, at: int) -> tuple[bool, int]:
    """Any varint but zero is true."""
    value, at = read_uint64(buffer, at)
    return value != 0, at


def packed_varints(
    buffer: bytes, at: int, stop: int, read: Callable[[bytes, int], tuple[Any, int]], values: list[Any]
) -> None:
    """Extend `values` by the packed numbers up to `stop`."""
    while at < stop:
        value, at = read(buffer, at)
        values.append(value)
    if at != stop:
        raise truncated()


def packed_fixed(buffer: bytes, at: int, stop: int, code: str, width: int, values: list[Any]) -> None:
    """Extend `values` by the packed numbers of `width` bytes up to `stop`."""
    count, rest = divmod(stop - at, width)
    if rest:
        raise truncated()
    values.extend(struct.unpack_from(f"<{count}{code}", buffer, at))


def skip(buffer: bytes, at: int, tag: int, depth: int) -> int:
    """Where the field whose tag ends at `at` ends itself."""
    kind = tag & 7
    if tag < 8:
        raise DecodeError("field number 0")
    if kind == 0:
        return read_uint64(buffer, at)[1]
    if kind == 1:
        return at + 8
    if kind == 2:
        length, at = size(buffer, at)
        return at + length
    if kind == 3:
        return _skip_group(buffer, at, tag + 1, depth - 1)
    if kind == 5:
        return at + 4
    raise DecodeError("a group ends that has not begun" if kind == 4 else f"wire type {kind}")


def _skip_group(buffer: bytes, at: int, end_tag: int, depth: int) -> int:
    if depth < 0:
        raise too_deep()
    while True:
        tag, at = long_tag(buffer, at)
        if tag == end_tag:
            return at
        at = skip(buffer, at, tag, depth)


def string_entry(buffer: bytes, at: int, end: int, depth: int, mapping: dict[str, str]) -> bool:
    """Add an entry of a map<string, string>. False when it has fields beside its key and value.

    Such an entry belongs to the unknown fields of its message: that is how protobuf loses nothing.
    """
    if depth < 0:
        raise too_deep()
    key = value = ""
    whole = True
    while at < end:
        tag = buffer[at]
        at += 1
        if tag > 127:
            tag, at = long_tag(buffer, at - 1)
        if tag == 10 or tag == 18:
            length = buffer[at]
            if length < 128:
                at += 1
            else:
                length, at = size(buffer, at)
            text = buffer[at : at + length].decode()
            at += length
            if tag == 10:
                key = text
            else:
                value = text
        else:
            at = skip(buffer, at, tag, depth)
            whole = False
    if at != end:
        raise truncated()
    if whole:
        mapping[key] = value
    return whole
