"""Cuts the bytes of a connection into frames and whole header blocks, and hands them to their handlers.

Knows the rules that need no stream: the preface, SETTINGS first, frame sizes, CONTINUATION right after what
it continues. A handler is called with (flags, stream id, buffer, start, end), so that nothing is copied which
it does not want; the header handler with (flags, stream id, block).

Sans-io; imports frames, limits and exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

from meshnode.transport import frames
from meshnode.transport.exceptions import ConnectionFault, StreamFault
from meshnode.transport.frames import ErrorCode, FrameType, unpack_header
from meshnode.transport.limits import Limits

__all__ = ["FrameHandler", "FrameReader", "HeaderHandler"]

FrameHandler = Callable[[int, int, bytes, int, int], None]
HeaderHandler = Callable[[int, int, bytes], None]


_WHOLE: Final = frames.END_HEADERS | frames.PADDED | frames.PRIORITY


@final
class FrameReader:
    """The reading end of one connection. Raises ConnectionFault; a StreamFault goes to `on_fault`."""

    __slots__ = (
        "_block",
        "_block_count",
        "_block_flags",
        "_block_id",
        "_block_size",
        "_handlers",
        "_left",
        "_limits",
        "_on_block",
        "_on_fault",
        "_preface",
        "greeted",
        "progressed",
        "stopped",
    )

    def __init__(
        self,
        handlers: Mapping[FrameType, FrameHandler],
        on_block: HeaderHandler,
        on_fault: Callable[[StreamFault], None],
        unknown: FrameHandler,
        *,
        preface: bytes,
        limits: Limits,
    ) -> None:
        own: dict[FrameType, FrameHandler] = {
            FrameType.HEADERS: self._headers,
            FrameType.CONTINUATION: self._continuation,
        }
        table = {**handlers, **own}
        self._handlers = (*(table[kind] for kind in FrameType), unknown)
        self._on_block = on_block
        self._on_fault = on_fault
        self._preface = preface
        self._limits = limits
        self._left = b""
        self._block: list[bytes] | None = None  # of a header block that is not complete
        self._block_id = self._block_flags = self._block_size = self._block_count = 0
        self.progressed = False  # whether the last bytes completed a frame
        self.greeted = False  # whether preface and first SETTINGS came
        self.stopped = False  # set by a handler: the rest of the bytes is of no interest

    @property
    def mid_frame(self) -> bool:
        """Whether a frame or header block has begun whose end is missing."""
        return bool(self._left) or self._block is not None

    def feed(self, data: bytes) -> None:
        """Take bytes; whatever they complete is handed over before this returns."""
        if self._left:
            data = self._left + data
        if self._preface:
            data = self._check_preface(data)
        position = 0
        size = len(data)
        limit = self._limits.frame_size
        handlers = self._handlers
        while size - position >= frames.HEADER_SIZE and not self.stopped:
            high, low, kind, flags, stream_id = unpack_header(data, position)
            start = position + 9
            length = (high << 8) + low
            if length > limit:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "frame larger than SETTINGS_MAX_FRAME_SIZE")
            end = start + length
            if end > size:
                break
            position = end
            if stream_id > frames.MAX_STREAM_ID:
                stream_id &= frames.MAX_STREAM_ID  # the reserved bit means nothing
            if self._block is not None or not self.greeted:
                self._check_order(kind, flags, stream_id)
            try:
                if kind == 1 and flags & _WHOLE == frames.END_HEADERS:  # nearly all HEADERS are like this
                    self._on_block(flags, stream_id, data[start:end])
                else:
                    handlers[kind if kind < 10 else 10](flags, stream_id, data, start, end)
            except StreamFault as fault:
                self._on_fault(fault)
        self.progressed = position > 0
        self._left = data[position:] if position < size else b""

    def _check_preface(self, data: bytes) -> bytes:
        expected = self._preface
        size = min(len(data), len(expected))
        if data[:size] != expected[:size]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "not an HTTP/2 connection preface")
        self._preface = expected[size:]
        return data[size:]

    def _check_order(self, kind: int, flags: int, stream_id: int) -> None:
        if not self.greeted:
            if kind != FrameType.SETTINGS or flags & frames.ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
            self.greeted = True
        elif kind != FrameType.CONTINUATION or stream_id != self._block_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")

    def _headers(self, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        if flags & frames.PADDED:
            start, end = unpad(data, start, end)
        if flags & frames.PRIORITY:
            if end - start < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            if int.from_bytes(data[start : start + 4], "big") & frames.MAX_STREAM_ID == stream_id:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
            start += 5
        block = data[start:end]
        if flags & frames.END_HEADERS:
            self._on_block(flags, stream_id, block)
        else:
            self._block = [block]
            self._block_id, self._block_flags = stream_id, flags
            self._block_size, self._block_count = len(block), 0

    def _continuation(self, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        if self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block.append(data[start:end])
        self._block_size += end - start
        self._block_count += 1
        limits = self._limits
        if self._block_count > limits.continuation_frames or self._block_size > limits.header_block_size:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header block too long")
        if flags & frames.END_HEADERS:
            block, self._block = b"".join(self._block), None
            self._on_block(self._block_flags, stream_id, block)


def unpad(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The bounds of a padded payload without its padding."""
    if start == end:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "padded frame without a pad length")
    end -= data[start]
    start += 1
    if end < start:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding longer than the frame")
    return start, end
