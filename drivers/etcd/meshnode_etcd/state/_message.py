"""The message that `state.etcd` v2 keeps below a key, as it looks on the wire. No I/O.

    Value     1 data (bytes), 2 ts (Time), 3 ttl (Time, may be missing)
    Time      1 seconds (int64), 2 nanos (int32): google.protobuf's Timestamp and Duration

Written out here instead of generated, because whoever reads a store with the wrong version of the component
must be told so: betterproto2's parser takes almost anything for a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from attrs import frozen

__all__ = ["Time", "Value", "pack", "unpack"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@final
@frozen
class Time:
    seconds: int = 0
    nanos: int = 0


@final
@frozen
class Value:
    """`ts`: when it was written. `ttl`: how long after that it lives; Dapr's component writes a time of
    nothing where there is no limit.
    """

    data: bytes = b""
    ts: Time | None = None
    ttl: Time | None = None


def pack(value: Value) -> bytes:
    packed = _bytes(1, value.data) if value.data else b""
    for number, time in ((2, value.ts), (3, value.ttl)):
        if time is not None:
            packed += _bytes(number, _number(1, time.seconds) + _number(2, time.nanos))
    return packed


def unpack(raw: bytes) -> Value:
    """Raises `ValueError` for what is no such message."""
    data, times = b"", dict[int, Time]()
    for number, kind, content in _fields(raw):
        if kind is not _BYTES or not isinstance(content, bytes):
            continue
        if number == 1:
            data = content
        elif number in (2, 3):
            times[number] = _time(content)
    return Value(data, times.get(2), times.get(3))


def _time(raw: bytes) -> Time:
    seconds = nanos = 0
    for number, kind, content in _fields(raw):
        if kind is _VARINT and isinstance(content, int):
            if number == 1:
                seconds = _signed(content, 64)
            elif number == 2:
                nanos = _signed(content, 32)
    return Time(seconds, nanos)


def _fields(raw: bytes) -> Iterator[tuple[int, int, bytes | int]]:
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"{number} is no field")
        if kind == _VARINT:
            content, at = _varint(raw, at)
            yield number, _VARINT, content
            continue
        if kind == _BYTES:
            length, at = _varint(raw, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"{kind} is no kind of field that a writer of today knows")
        if length > len(raw) - at:
            raise ValueError("it ends within a field")
        yield number, _BYTES if kind == _BYTES else kind, raw[at : at + length]
        at += length


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    result = 0
    for place in range(10):
        if at + place >= len(raw):
            raise ValueError("it ends within a number")
        byte = raw[at + place]
        result |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if result >= 1 << 64:
                break
            return result, at + place + 1
    raise ValueError("a number of more than 64 bits")


def _signed(number: int, bits: int) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def _number(field: int, number: int) -> bytes:
    return bytes([field << 3 | _VARINT]) + _packed(number & ((1 << 64) - 1)) if number else b""


def _bytes(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | _BYTES]) + _packed(len(content)) + content


def _packed(number: int) -> bytes:
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)
