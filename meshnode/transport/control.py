"""Frames that concern the connection rather than a call: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, PRIORITY, and
all we do not know.

Whatever a peer can make us do here without a request behind it is paid from a RateGuard, and answers that it
does not read are counted.

Sans-io; imports the other sans-io modules, and connection for its type only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from meshnode.transport import frames
from meshnode.transport.exceptions import ConnectionFault, StreamFault
from meshnode.transport.frames import ErrorCode
from meshnode.transport.guard import RateGuard
from meshnode.transport.limits import Limits
from meshnode.transport.settings import parse

if TYPE_CHECKING:
    from meshnode.transport.connection import Connection

__all__ = ["Control"]


@final
class Control:
    """Handlers of control frames, for both roles."""

    __slots__ = (
        "_connection",
        "_empties",
        "_limits",
        "_odd",
        "_ping_mark",
        "_pings",
        "_resets",
        "_settings",
        "_unread",
    )

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._unread = 0
        self._ping_mark = (0, 0, 0)
        self._resets = RateGuard(limits.resets_per_second, limits.resets_burst)
        self._pings = RateGuard(limits.pings_per_second, limits.pings_burst)
        self._settings = RateGuard(limits.settings_per_second, limits.settings_burst)
        self._empties = RateGuard(limits.empty_data_per_second, limits.empty_data_burst)
        self._odd = RateGuard(limits.odd_frames_per_second, limits.odd_frames_burst)

    # --- what a peer has to pay for

    def _pay(self, guard: RateGuard, message: str) -> None:
        if not guard.spend(self._connection.now):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message)

    def pay_reset(self) -> None:
        """A stream ended in a reset, by the peer or by its fault."""
        self._pay(self._resets, "too many resets")

    def pay_empty(self) -> None:
        """DATA that carries nothing."""
        self._pay(self._empties, "too many empty DATA frames")

    def pay_odd(self) -> None:
        """A frame that is read only to be ignored."""
        self._pay(self._odd, "too many frames without effect")

    def reply(self, data: bytes) -> None:
        """Answer a frame of the peer's; it has to read its answers."""
        self._unread += 1
        if self._unread > self._limits.unsent_replies:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "answers are not read")
        self._connection.outbound.control(data)

    def flushed(self) -> None:
        """All answers have left."""
        self._unread = 0

    # --- handlers

    def settings(self, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if start != end:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS acknowledgement with a payload")
            return
        self._pay(self._settings, "too many SETTINGS")
        connection = self._connection
        # Of a key that is repeated only the last value has an effect; a frame full of them is an attack.
        for key, value in dict(parse(data[start:end])).items():
            connection.outbound.apply(key, value)
        self.reply(frames.SETTINGS_ACK)
        connection.observer.slots_changed()

    def ping(self, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if end - start != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING that is not 8 bytes long")
        connection = self._connection
        if flags & frames.ACK:
            connection.observer.ping_acked(data[start:end])
            return
        # Peers measure their bandwidth with PINGs while data flows: only the pointless ones cost something.
        mark = (connection.last_id, connection.inflow.window, connection.outbound.window)
        if mark == self._ping_mark:
            self._pay(self._pings, "too_many_pings")
        self._ping_mark = mark
        self.reply(frames.ping(data[start:end], ack=True))

    def goaway(self, _flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if end - start < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY shorter than 8 bytes")
        self.pay_odd()
        last_id = int.from_bytes(data[start : start + 4], "big") & frames.MAX_STREAM_ID
        code = int.from_bytes(data[start + 4 : start + 8], "big")
        self._connection.peer_goes_away(last_id, code, data[start + 8 : end])

    def window_update(self, _flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        if end - start != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE that is not 4 bytes long")
        increment = int.from_bytes(data[start:end], "big") & frames.MAX_WINDOW
        connection = self._connection
        if stream_id == 0:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            connection.outbound.widen_connection(increment)
            return
        stream = connection.streams.get(stream_id)
        if stream is None:
            connection.check_known(stream_id, "WINDOW_UPDATE")
            self.pay_odd()
            return
        if not increment:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        connection.outbound.widen_stream(stream, increment)

    def priority(self, _flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if end - start != 5:
            raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY that is not 5 bytes long")
        if int.from_bytes(data[start : start + 4], "big") & frames.MAX_STREAM_ID == stream_id:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
        self.pay_odd()

    def push_promise(self, _flags: int, _stream_id: int, _data: bytes, _start: int, _end: int) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which we did not allow")

    def unknown(self, _flags: int, _stream_id: int, _data: bytes, _start: int, _end: int) -> None:
        self.pay_odd()
