"""Flow control of what we receive: windows shrink as DATA comes and grow back as consumers take it.

Credit goes back when half a window is owed, so that small messages cost no WINDOW_UPDATE of their own. One
exception keeps large messages from getting stuck: while somebody waits for a message, its pieces are paid for
as they come, because the message may be larger than the window (its size is bounded by the message limit).

Sans-io; imports frames, limits and exceptions.
"""

from __future__ import annotations

from typing import final

from meshnode.transport import frames
from meshnode.transport.exceptions import ConnectionFault, StreamFault
from meshnode.transport.frames import ErrorCode
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.limits import Limits
from meshnode.transport.outbound import Send

__all__ = ["Inflow"]


@final
class Inflow:
    """The receive windows of a connection and its streams."""

    __slots__ = ("_connection_share", "_owed", "_send", "_stream_share", "window")

    def __init__(self, limits: Limits, send: Send) -> None:
        self._send = send
        self.window = limits.connection_window
        self._owed = 0
        self._connection_share = max(1, limits.connection_window // 2)
        self._stream_share = max(1, limits.stream_window // 2)

    def charge(self, size: int, stream: H2Stream | None = None) -> None:
        """DATA came."""
        self.window -= size
        if self.window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "connection window exceeded")
        if stream is not None:
            stream.recv_window -= size
            if stream.recv_window < 0:
                self.refund(size)
                raise StreamFault(stream.id, ErrorCode.FLOW_CONTROL_ERROR, "stream window exceeded")

    def refund(self, size: int) -> None:
        """Give back credit of the connection only: what nobody reads must not come forever."""
        self._owed += size
        if self._owed >= self._connection_share:
            self.window += self._owed
            self._send(frames.window_update(0, self._owed), False)
            self._owed = 0

    def refund_stream(self, stream: H2Stream, size: int) -> None:
        """Give back credit of the connection, and of the stream if more may come on it."""
        self._owed += size
        if self._owed >= self._connection_share:
            self.refund(0)
        if stream.remote_ended:
            return
        stream.owed += size
        if stream.owed >= self._stream_share:
            stream.recv_window += stream.owed
            self._send(frames.window_update(stream.id, stream.owed), False)
            stream.owed = 0

    def taken(self, stream: H2Stream, message: bytes) -> None:
        """A consumer took a message."""
        size = len(message)
        if stream.prepaid:
            size -= stream.prepaid
            stream.prepaid = 0
        stream.received -= size
        self.refund_stream(stream, size)

    def starving(self, stream: H2Stream) -> None:
        """A consumer waits for a message of which only a part is here: let the rest come."""
        size = stream.received
        if size:
            stream.received = 0
            stream.prepaid += size
            self.refund_stream(stream, size)

    def abandon(self, stream: H2Stream) -> None:
        """Nobody will take what the stream holds."""
        if stream.received:
            self.refund(stream.received)
            stream.received = 0
        stream.first = stream.more = stream.assembler = None
