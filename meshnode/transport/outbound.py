"""The sending half of a connection: frames out, bounded by the peer's windows and settings.

Everything is synchronous. What does not fit the windows is not sent: the caller is told how far it came and
waits on the stream's `writer` token, which is how the peer's back-pressure reaches whoever produces the data.

Sans-io; imports frames, hpack, settings and h2stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from meshnode.transport import frames
from meshnode.transport.exceptions import ConnectionFault, StreamFault
from meshnode.transport.frames import ErrorCode, WireHeaders, pack_header, pack_id
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.hpack import NO_DYNAMIC_TABLE
from meshnode.transport.settings import PeerSettings, Setting

__all__ = ["Outbound", "Send", "Wake"]

Send = Callable[[bytes, bool], None]
"""Takes bytes for the peer; True if nothing else is going on, so that sending at once is the fastest."""

Wake = Callable[[Any], None]
"""Takes a stream's token: whoever left it should look at the stream again."""


@final
class Outbound:
    """Encodes frames and keeps the send windows. Streams are shared with the connection that owns this
    half.
    """

    __slots__ = ("_fresh", "_send", "_stalled", "_streams", "_wake", "peer", "window")

    def __init__(self, streams: dict[int, H2Stream], send: Send, wake: Wake) -> None:
        self.peer = PeerSettings()
        self.window = frames.DEFAULT_WINDOW
        self._streams = streams
        self._send = send
        self._wake = wake
        self._stalled: dict[H2Stream, None] = {}  # in the order in which they met the connection's window
        self._fresh = True  # no header block was sent yet

    # --- sending

    def control(self, data: bytes) -> None:
        """Send a control frame."""
        self._send(data, False)

    def unary(self, stream: H2Stream, head: WireHeaders, message: bytes, tail: WireHeaders | None) -> bool:
        """Send headers, one message and trailers (END_STREAM on the message if None) in one write.

        False if windows, frame size or a first block stand in the way; nothing was sent then.
        """
        size = len(message)
        if (
            size > self.window
            or size > stream.send_window
            or size > self.peer.frame_size
            or self._fresh
            or len(head[1]) > frames.DEFAULT_FRAME_SIZE
            or (tail is not None and len(tail[1]) > frames.DEFAULT_FRAME_SIZE)
        ):
            return False
        self.window -= size
        stream.send_window -= size
        stream.local_ended = True
        wire_id = pack_id(stream.id)
        if tail is None:
            data = pack_header(size >> 8, size & 0xFF, 0, frames.END_STREAM, stream.id)
            parts: tuple[bytes, ...] = (head[0], wire_id, head[1], data, message)
        else:
            data = pack_header(size >> 8, size & 0xFF, 0, 0, stream.id)
            parts = (head[0], wire_id, head[1], data, message, tail[0], wire_id, tail[1])
        self._send(b"".join(parts), len(self._streams) <= 1)
        return True

    def headers(self, stream: H2Stream, block: bytes, *, end: bool) -> None:
        """Send a header block: request or response headers, or trailers."""
        if self._fresh:
            self._fresh = False
            block = NO_DYNAMIC_TABLE + block
        if end:
            stream.local_ended = True
        encoded = frames.headers(stream.id, block, end=end, frame_size=self.peer.frame_size)
        self._send(encoded, end and len(self._streams) <= 1)

    def data(self, stream: H2Stream, payload: bytes, offset: int, *, end: bool) -> int:
        """Send what the windows allow of `payload[offset:]`; returns the offset reached.

        If that is not the end, the caller leaves its token in `stream.writer` and tries again when woken.
        """
        total = len(payload)
        frame_size = self.peer.frame_size
        parts: list[bytes] = []
        while True:
            room = min(self.window, stream.send_window, frame_size)
            size = min(total - offset, max(room, 0))
            if size == 0 and offset < total:
                if self.window <= 0:
                    self._stalled[stream] = None
                    stream.stalled = True
                break
            last = offset + size == total
            flags = frames.END_STREAM if last and end else 0
            parts.append(pack_header(size >> 8, size & 0xFF, 0, flags, stream.id))
            parts.append(payload if size == total else payload[offset : offset + size])
            self.window -= size
            stream.send_window -= size
            offset += size
            if last:
                stream.local_ended = end
                break
        if parts:
            self._send(b"".join(parts), offset == total and len(self._streams) <= 1)
        return offset

    def reset(self, stream_id: int, code: int) -> None:
        """Send RST_STREAM."""
        self._send(frames.rst_stream(stream_id, code), len(self._streams) <= 1)

    # --- what the peer allows

    def forget(self, stream: H2Stream) -> None:
        """A stalled stream is over."""
        self._stalled.pop(stream, None)

    def widen_connection(self, increment: int) -> None:
        """WINDOW_UPDATE for the connection."""
        if self.window + increment > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "connection window above 2^31-1")
        self.window += increment
        if self._stalled:
            stalled, self._stalled = self._stalled, {}
            for stream in stalled:
                stream.stalled = False
                self._wake_writer(stream)

    def widen_stream(self, stream: H2Stream, increment: int) -> None:
        """WINDOW_UPDATE for a stream."""
        if stream.send_window + increment > frames.MAX_WINDOW:
            raise StreamFault(stream.id, ErrorCode.FLOW_CONTROL_ERROR, "stream window above 2^31-1")
        stream.send_window += increment
        self._wake_writer(stream)

    def apply(self, key: int, value: int) -> None:
        """One entry of the peer's SETTINGS."""
        peer = self.peer
        if key == Setting.INITIAL_WINDOW_SIZE:
            delta = value - peer.initial_window
            peer.initial_window = value
            for stream in self._streams.values():
                if stream.send_window + delta > frames.MAX_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "stream window above 2^31-1")
                stream.send_window += delta
                if delta > 0:
                    self._wake_writer(stream)
        elif key == Setting.MAX_FRAME_SIZE:
            peer.frame_size = value
        elif key == Setting.MAX_CONCURRENT_STREAMS:
            peer.max_streams = value
        elif key == Setting.MAX_HEADER_LIST_SIZE:
            peer.header_list_size = value
        # HEADER_TABLE_SIZE needs nothing: our encoder has no table.

    def _wake_writer(self, stream: H2Stream) -> None:
        token = stream.writer
        if token is not None:
            stream.writer = None
            self._wake(token)
