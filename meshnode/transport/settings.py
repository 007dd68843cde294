"""SETTINGS: what the peer announced, and what we announce (RFC 9113, section 6.5).

Sans-io; imports frames, limits and exceptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final, final

from meshnode.transport import frames
from meshnode.transport.exceptions import ConnectionFault
from meshnode.transport.frames import ErrorCode
from meshnode.transport.limits import Limits

__all__ = ["PeerSettings", "Setting", "announce", "parse"]

_entry: Final = Struct(">HL")
UNLIMITED: Final = 0xFFFF_FFFF


class Setting(IntEnum):
    """The settings we know; others are ignored."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


@final
class PeerSettings:
    """What the peer allows us; starts with the protocol's defaults."""

    __slots__ = ("frame_size", "header_list_size", "initial_window", "max_streams")

    def __init__(self) -> None:
        self.max_streams = UNLIMITED
        self.initial_window = frames.DEFAULT_WINDOW
        self.frame_size = frames.DEFAULT_FRAME_SIZE
        self.header_list_size = UNLIMITED


def parse(payload: bytes) -> Iterator[tuple[int, int]]:
    """The entries of a SETTINGS payload in order, each checked; ConnectionFault for one that cannot be."""
    if len(payload) % _entry.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a length that is no multiple of 6")
    for key, value in _entry.iter_unpack(payload):
        if key == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        if key == Setting.INITIAL_WINDOW_SIZE and value > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE above 2^31-1")
        if key == Setting.MAX_FRAME_SIZE and not frames.DEFAULT_FRAME_SIZE <= value < 1 << 24:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
        yield key, value


def announce(limits: Limits, *, client: bool) -> bytes:
    """Our SETTINGS, and the WINDOW_UPDATE that widens the connection's window to its limit."""
    entries = {
        Setting.INITIAL_WINDOW_SIZE: limits.stream_window,
        Setting.MAX_FRAME_SIZE: limits.frame_size,
        Setting.MAX_HEADER_LIST_SIZE: limits.header_list_size,
        Setting.HEADER_TABLE_SIZE: limits.header_table_size,
    }
    if client:
        entries[Setting.ENABLE_PUSH] = 0
    else:
        entries[Setting.MAX_CONCURRENT_STREAMS] = limits.concurrent_streams
    payload = b"".join(_entry.pack(key, value) for key, value in entries.items())
    increment = limits.connection_window - frames.DEFAULT_WINDOW
    widen = frames.window_update(0, increment) if increment else b""
    return frames.frame(frames.FrameType.SETTINGS, 0, 0, payload) + widen
