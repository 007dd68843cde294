"""The bytes of HTTP/2 frames: constants and encoders (RFC 9113, sections 4, 6 and 7).

Sans-io; imports nothing from meshnode.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

__all__ = ["ErrorCode", "FrameType", "WireHeaders"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HEADER_SIZE: Final = 9
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME_SIZE: Final = 16_384
MAX_WINDOW: Final = 0x7FFF_FFFF
MAX_STREAM_ID: Final = 0x7FFF_FFFF

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

unpack_header: Final = Struct(">HBBBL").unpack_from  # length as 16 + 8 bits, type, flags, stream
pack_header: Final = Struct(">HBBBL").pack
pack_id: Final = Struct(">L").pack

WireHeaders = tuple[bytes, bytes]
"""A header block ready to be sent on any stream: the frame header up to the stream id, and the block."""


class FrameType(IntEnum):
    """Frame types; PUSH_PROMISE is only known to be refused."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class ErrorCode(IntEnum):
    """Error codes of RST_STREAM and GOAWAY."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    length = len(payload)
    return pack_header(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


def rst_stream(stream_id: int, code: int) -> bytes:
    return b"\0\0\x04\x03\0" + pack_id(stream_id) + pack_id(code)


def window_update(stream_id: int, increment: int) -> bytes:
    return b"\0\0\x04\x08\0" + pack_id(stream_id) + pack_id(increment)


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    return (b"\0\0\x08\x06\x01\0\0\0\0" if ack else b"\0\0\x08\x06\0\0\0\0\0") + payload


def goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    return frame(FrameType.GOAWAY, 0, 0, pack_id(last_stream_id) + pack_id(code) + debug)


SETTINGS_ACK: Final = frame(FrameType.SETTINGS, ACK, 0)


def wire_headers(block: bytes, *, end: bool) -> WireHeaders:
    """Prepare an encoded block that fits one frame; see `headers` for those that do not."""
    length = len(block)
    flags = END_HEADERS | END_STREAM if end else END_HEADERS
    return pack_header(length >> 8 & 0xFFFF, length & 0xFF, FrameType.HEADERS, flags, 0)[:5], block


def headers(stream_id: int, block: bytes, *, end: bool, frame_size: int) -> bytes:
    """HEADERS, and CONTINUATION where the block is larger than the peer's frames may be."""
    flags = END_STREAM if end else 0
    if len(block) <= frame_size:
        return frame(FrameType.HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [frame(FrameType.HEADERS, flags, stream_id, block[:frame_size])]
    for start in range(frame_size, len(block), frame_size):
        last = END_HEADERS if start + frame_size >= len(block) else 0
        parts.append(frame(FrameType.CONTINUATION, last, stream_id, block[start : start + frame_size]))
    return b"".join(parts)


def data(stream_id: int, payload: bytes, *, end: bool) -> bytes:
    """One DATA frame."""
    return frame(FrameType.DATA, END_STREAM if end else 0, stream_id, payload)
