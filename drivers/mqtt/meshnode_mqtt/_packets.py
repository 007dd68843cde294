"""MQTT 3.1.1 as bytes: packets out, packets in. No I/O.

Only what a client sends and receives. A packet that no server may send raises `ProtocolError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

from attrs import frozen

__all__ = [
    "DISCONNECT",
    "PINGREQ",
    "PUBACK",
    "PUBCOMP",
    "PUBREC",
    "PUBREL",
    "REFUSALS",
    "UNSUBACK",
    "Ack",
    "ConnAck",
    "Decoder",
    "Packet",
    "PingResp",
    "ProtocolError",
    "Publish",
    "SubAck",
    "ack",
    "connect",
    "publish",
    "subscribe",
    "unsubscribe",
]

PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK = 4, 5, 6, 7, 11
_CONNACK, _PUBLISH, _SUBACK, _PINGRESP = 2, 3, 9, 13

PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"

REFUSALS: Mapping[int, str] = {
    1: "the broker does not speak MQTT 3.1.1",
    2: "the broker does not take this client id",
    3: "the broker is not available",
    4: "wrong user name or password",
    5: "not authorised",
}

LARGEST = 268_435_455
"""The largest length that can be written."""


class ProtocolError(Exception):
    """The broker sent what is not MQTT 3.1.1."""


@final
@frozen
class ConnAck:
    session_present: bool
    code: int


@final
@frozen
class Publish:
    """`packet_id` is 0 with QoS 0."""

    topic: str
    data: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0


@final
@frozen
class Ack:
    """PUBACK, PUBREC, PUBREL, PUBCOMP and UNSUBACK: nothing but a packet id."""

    kind: int
    packet_id: int


@final
@frozen
class SubAck:
    """`codes`: the QoS granted to each topic, or 0x80."""

    packet_id: int
    codes: bytes


@final
@frozen
class PingResp:
    pass


Packet = ConnAck | Publish | Ack | SubAck | PingResp


def _packet(first: int, *parts: bytes) -> bytes:
    length = sum(map(len, parts))
    if length > LARGEST:
        raise ValueError(f"{length} bytes are more than a packet can hold")
    header = bytearray([first])
    while True:
        length, digit = divmod(length, 128)
        header.append(digit | (0x80 if length else 0))
        if not length:
            return b"".join((bytes(header), *parts))


def _number(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _text(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > 0xFFFF:
        raise ValueError(f"a text of {len(raw)} bytes is too long")
    return _number(len(raw)) + raw


def connect(client_id: str, *, clean: bool, keep_alive: int, user: str = "", password: str = "") -> bytes:
    flags = (0x02 if clean else 0) | (0x80 if user else 0) | (0x40 if user and password else 0)
    login = [_text(user)] if user else []
    if user and password:
        login.append(_text(password))
    start = b"\x00\x04MQTT\x04" + bytes([flags]) + _number(keep_alive)
    return _packet(0x10, start, _text(client_id), *login)


def publish(packet: Publish) -> bytes:
    flags = (8 if packet.dup else 0) | packet.qos << 1 | (1 if packet.retain else 0)
    number = _number(packet.packet_id) if packet.qos else b""
    return _packet(_PUBLISH << 4 | flags, _text(packet.topic), number, packet.data)


def ack(kind: int, packet_id: int) -> bytes:
    return _packet(kind << 4 | (2 if kind == PUBREL else 0), _number(packet_id))


def subscribe(packet_id: int, topic: str, qos: int) -> bytes:
    return _packet(0x82, _number(packet_id), _text(topic), bytes([qos]))


def unsubscribe(packet_id: int, topic: str) -> bytes:
    return _packet(0xA2, _number(packet_id), _text(topic))


def _read_connack(flags: int, body: bytes) -> ConnAck:
    if flags or len(body) != 2:
        raise ProtocolError("malformed CONNACK")
    return ConnAck(bool(body[0] & 1), body[1])


def _read_publish(flags: int, body: bytes) -> Publish:
    qos = flags >> 1 & 3
    end = 2 + int.from_bytes(body[:2], "big")
    start = end + (2 if qos else 0)
    if qos == 3 or len(body) < max(2, start):
        raise ProtocolError("malformed PUBLISH")
    try:
        topic = body[2:end].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("a topic that is not UTF-8") from error
    packet_id = int.from_bytes(body[end:start], "big")
    if qos and not packet_id:
        raise ProtocolError("PUBLISH without a packet id")
    return Publish(topic, body[start:], qos, bool(flags & 1), bool(flags & 8), packet_id)


def _read_suback(_flags: int, body: bytes) -> SubAck:
    if len(body) < 3:
        raise ProtocolError("malformed SUBACK")
    return SubAck(int.from_bytes(body[:2], "big"), body[2:])


def _read_pingresp(_flags: int, body: bytes) -> PingResp:
    if body:
        raise ProtocolError("malformed PINGRESP")
    return PingResp()


def _ack_reader(kind: int) -> Callable[[int, bytes], Ack]:
    def read(_flags: int, body: bytes) -> Ack:
        if len(body) != 2:
            raise ProtocolError(f"malformed acknowledgement of type {kind}")
        return Ack(kind, int.from_bytes(body, "big"))

    return read


_READERS: Mapping[int, Callable[[int, bytes], Packet]] = {
    _CONNACK: _read_connack,
    _PUBLISH: _read_publish,
    _SUBACK: _read_suback,
    _PINGRESP: _read_pingresp,
    **{kind: _ack_reader(kind) for kind in (PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK)},
}


@final
class Decoder:
    """Bytes in whatever pieces they come, and the packets in them."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        self._buffer += data

    def next(self) -> Packet | None:
        """None until more has come. Raises `ProtocolError`, after which nothing more can be read."""
        header = self._header()
        if header is None:
            return None
        start, end = header
        if len(self._buffer) < end:
            return None
        first, body = self._buffer[0], bytes(memoryview(self._buffer)[start:end])
        del self._buffer[:end]
        reader = _READERS.get(first >> 4)
        if reader is None:
            raise ProtocolError(f"a packet of type {first >> 4}")
        return reader(first & 15, body)

    def _header(self) -> tuple[int, int] | None:
        """Where the next packet's body begins and ends; None when its length is not there yet."""
        length = 0
        for position in range(1, min(5, len(self._buffer))):
            digit = self._buffer[position]
            length |= (digit & 0x7F) << 7 * (position - 1)
            if digit < 0x80:
                return position + 1, position + 1 + length
        if len(self._buffer) >= 5:
            raise ProtocolError("a length of more than four bytes")
        return None
