"""An HTTP/2 connection restricted to what gRPC needs, for either role, without any I/O.

Theory of operation. `receive` takes bytes and the time; it changes streams, wakes whoever waits for them, and
tells its observer about what concerns more than one stream. Bytes for the peer leave through the `send`
callback, either from here (answers to the peer's frames) or from `outbound` (what callers send).

    reader     bytes -> frames and header blocks
    control    SETTINGS, PING, GOAWAY, WINDOW_UPDATE, PRIORITY, and what abuse costs
    inflow     receive windows: credit goes back when a consumer took the data
    outbound   frames -> bytes, bounded by the peer's windows and settings
    this       streams: opening, DATA, HEADERS, RST_STREAM, their ends

A ConnectionFault ends the connection: GOAWAY, every stream aborted, `closed` set. A StreamFault ends one
stream: RST_STREAM, the rest goes on. Nothing a peer sends raises out of `receive`.

Sans-io; imports the modules of this package that are sans-io too.
"""

from __future__ import annotations

from typing import Final, Protocol, final

from grpclib.const import Status

from meshnode.transport import fields, frames
from meshnode.transport.control import Control
from meshnode.transport.exceptions import (
    ConnectionFault,
    ConnectionLost,
    GRPCError,
    StreamFault,
    reset_error,
)
from meshnode.transport.frames import ErrorCode, FrameType
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.hpack import Decoder, HeaderBlock, HeaderListTooLarge, HpackError
from meshnode.transport.inflow import Inflow
from meshnode.transport.limits import Limits
from meshnode.transport.outbound import Outbound, Send, Wake
from meshnode.transport.reader import FrameReader, unpad
from meshnode.transport.settings import announce

__all__ = ["Connection", "Observer"]

_REMEMBERED_RESETS: Final = 4096
_REMEMBERED_GAPS: Final = 64


class Observer(Protocol):
    """What a connection tells its owner, besides waking the streams' tokens."""

    def request(self, stream: H2Stream) -> None:
        """Server: a client opened a stream; `stream.headers` are there."""

    def aborted(self, stream: H2Stream) -> None:
        """The stream ended by a reset or with the connection; `stream.error` says why."""

    def going_away(self) -> None:
        """Client: the server takes no new streams."""

    def slots_changed(self) -> None:
        """Client: SETTINGS came or a stream ended, so that a waiting call may now be opened."""

    def ping_acked(self, payload: bytes) -> None:
        """The peer answered a PING of ours."""


@final
class Connection:
    """See the module's docstring. The server role takes requests, the client role opens them."""

    __slots__ = (
        "_client",
        "_control",
        "_decoder",
        "_gaps",
        "_limits",
        "_reader",
        "_reset_ids",
        "_wake",
        "accept_up_to",
        "closed",
        "fault",
        "inflow",
        "last_id",
        "next_id",
        "now",
        "observer",
        "outbound",
        "refused_above",
        "streams",
    )

    def __init__(self, *, client: bool, limits: Limits, send: Send, wake: Wake, observer: Observer) -> None:
        self._client = client
        self._limits = limits
        self._wake = wake
        self.observer = observer
        self.streams: dict[int, H2Stream] = {}
        self.outbound = Outbound(self.streams, send, wake)
        self.inflow = Inflow(limits, send)
        self.closed = False
        self.fault: ConnectionFault | None = None
        self.now = 0.0
        self.last_id = 0  # the newest stream the peer opened
        self.next_id = 1  # the next stream we open
        self.accept_up_to = frames.MAX_STREAM_ID  # from our GOAWAY
        self.refused_above: int | None = None  # from the peer's GOAWAY
        self._decoder = Decoder(limits.header_table_size)
        self._reset_ids: dict[int, None] = {}  # streams we reset: late frames on them are no fault
        self._gaps: dict[int, int] = {}  # first -> last of ids a client skipped: closed, but never open
        self._control = control = Control(self, limits)
        handlers = {
            FrameType.DATA: self._data,
            FrameType.PRIORITY: control.priority,
            FrameType.RST_STREAM: self._rst_stream,
            FrameType.SETTINGS: control.settings,
            FrameType.PUSH_PROMISE: control.push_promise,
            FrameType.PING: control.ping,
            FrameType.GOAWAY: control.goaway,
            FrameType.WINDOW_UPDATE: control.window_update,
        }
        preface = b"" if client else frames.PREFACE
        self._reader = FrameReader(
            handlers, self._block, self._fail_stream, control.unknown, preface=preface, limits=limits
        )
        send((frames.PREFACE if client else b"") + announce(limits, client=client), True)

    # --- for the I/O around it

    @property
    def greeted(self) -> bool:
        """Whether the peer's preface and first SETTINGS are through."""
        return self._reader.greeted

    @property
    def mid_frame(self) -> bool:
        """Whether a frame or header block has begun whose end is missing."""
        return self._reader.mid_frame

    @property
    def progressed(self) -> bool:
        """Whether the bytes received last completed a frame."""
        return self._reader.progressed

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the peer."""
        if self.closed:
            return
        self.now = now
        try:
            self._reader.feed(data)
        except ConnectionFault as fault:
            self.fail(fault)

    def flushed(self) -> None:
        """Everything sent so far has left."""
        self._control.flushed()

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection because the peer broke its rules."""
        if not self.closed:
            self.fault = fault
            self.outbound.control(frames.goaway(self.last_id, fault.code, fault.message.encode()))
            self.lose(f"connection error: {fault.message}")

    def lose(self, reason: str) -> None:
        """The connection is gone: abort every stream."""
        if not self.closed:
            self.closed = self._reader.stopped = True
            for stream in list(self.streams.values()):
                self._abort(stream, ConnectionLost(reason, sent=True))
            self.observer.slots_changed()

    # --- for callers

    def open(self) -> H2Stream | None:
        """Client: a new stream; None while the peer allows no more of them, or none at all."""
        peer = self.outbound.peer
        stream_id = self.next_id
        if (
            len(self.streams) >= peer.max_streams
            or self.refused_above is not None
            or self.closed
            or stream_id > frames.MAX_STREAM_ID
        ):
            return None
        self.next_id = stream_id + 2
        stream = H2Stream(stream_id, peer.initial_window, self._limits.stream_window)
        self.streams[stream_id] = stream
        return stream

    def finished(self, stream: H2Stream) -> None:
        """Server: the response is sent. The rest of the request, if there is one, is of no interest."""
        if stream.remote_ended:
            self._drop(stream)
        else:
            self.cancel(stream, ErrorCode.NO_ERROR)

    def cancel(self, stream: H2Stream, code: ErrorCode) -> None:
        """Reset a stream, if it is still there."""
        if self.streams.get(stream.id) is stream:
            self._remember_reset(stream.id)
            self.outbound.reset(stream.id, code)
            self._drop(stream)

    def discard(self, stream: H2Stream) -> None:
        """Drop what comes from now on, and let the peer end the stream."""
        stream.discarding = True
        self.inflow.abandon(stream)
        if stream.remote_ended and stream.local_ended:
            self._drop(stream)

    def ping(self, payload: bytes) -> None:
        """Send a PING of eight bytes; `ping_acked` follows."""
        self.outbound.control(frames.ping(payload))

    def go_away(self, *, last_id: int | None = None) -> None:
        """Say that no stream above `last_id` will be served; by default none but those already there."""
        if not self.closed:
            self.accept_up_to = self.last_id if last_id is None else last_id
            self.outbound.control(frames.goaway(self.accept_up_to, ErrorCode.NO_ERROR))

    # --- frames that belong to streams

    def _data(self, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        size = end - start
        self.inflow.charge(size)
        stream = self.streams.get(stream_id)
        if stream is None or stream.remote_ended:
            self.inflow.refund(size)
            self._late(stream_id, "DATA")
            return
        self.inflow.charge_stream(stream, size)
        if flags & frames.PADDED:
            start, end = unpad(data, start, end)
            self.inflow.refund_stream(stream, size - (end - start))
            size = end - start
        ended = flags & frames.END_STREAM
        if stream.content_left >= 0:
            stream.content_left -= size
            if stream.content_left < 0 or (ended and stream.content_left):
                raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "content-length and DATA differ")
        if size:
            self._deliver(stream, data[start:end])
        elif not ended:
            self._control.pay_empty()
        if ended:
            self._end_remote(stream)

    def _deliver(self, stream: H2Stream, payload: bytes) -> None:
        if stream.headers is None:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "DATA before HEADERS")
        if stream.discarding:
            self.inflow.refund(len(payload))
            return
        stream.received += len(payload)
        try:
            stream.accept(payload, self._limits.message_size)
        except GRPCError as error:
            stream.error = error
            self.discard(stream)
            self._wake_both(stream)
            return
        if stream.reader is not None:
            if stream.first is None:
                self.inflow.starving(stream)
            else:
                token, stream.reader = stream.reader, None
                self._wake(token)

    def _block(self, flags: int, stream_id: int, encoded: bytes) -> None:
        block: HeaderBlock | None = None
        try:
            block = self._decoder.decode(encoded, self._limits.header_list_size)
        except HpackError as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(error)) from None
        except HeaderListTooLarge:
            pass  # answered below, when it is clear whose block it is
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self._accept(stream_id)
            if stream is None:
                return
        if block is None:
            raise StreamFault(stream_id, ErrorCode.ENHANCE_YOUR_CALM, "header list too large")
        try:
            if self._client:
                self._response_block(stream, block, flags & frames.END_STREAM)
            else:
                self._request_block(stream, block, flags & frames.END_STREAM)
        except fields.MalformedHeaders as error:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, str(error)) from None

    def _request_block(self, stream: H2Stream, block: HeaderBlock, ended: int) -> None:
        if stream.headers is not None:
            self._trailer_block(stream, block, ended)
            return
        fields.check_request(block)
        length = fields.content_length(block)
        if length is not None:
            stream.content_left = length
        stream.headers = block
        if ended:
            self._end_remote(stream)
        self.observer.request(stream)

    def _response_block(self, stream: H2Stream, block: HeaderBlock, ended: int) -> None:
        if stream.headers is not None:
            self._trailer_block(stream, block, ended)
            return
        fields.check_response(block)
        if block[0][1][0] == 0x31:  # 1xx is informational: the response is still to come
            if ended:
                raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "informational response that ends")
            self._control.pay_odd()
            return
        stream.headers = block
        if ended:
            stream.trailers = block
            self._end_remote(stream)
        elif stream.reader is not None:
            token, stream.reader = stream.reader, None
            self._wake(token)

    def _trailer_block(self, stream: H2Stream, block: HeaderBlock, ended: int) -> None:
        if stream.remote_ended:
            raise StreamFault(stream.id, ErrorCode.STREAM_CLOSED, "HEADERS after the end of the stream")
        if not ended:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "trailers that do not end the stream")
        fields.check_trailers(block)
        stream.trailers = block
        self._end_remote(stream)

    def _rst_stream(self, _flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on stream 0")
        if end - start != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM that is not 4 bytes long")
        stream = self.streams.get(stream_id)
        if stream is None:
            self.check_known(stream_id, "RST_STREAM")
            self._control.pay_odd()
            return
        if not self._client:
            self._control.pay_reset()
        code = int.from_bytes(data[start:end], "big")
        self._abort(stream, reset_error(code))

    # --- the life of a stream

    def _accept(self, stream_id: int) -> H2Stream | None:
        """Server: the stream that HEADERS open, or None if it is not to be."""
        if self._client or stream_id <= self.last_id or not stream_id & 1:
            self._late(stream_id, "HEADERS")
            return None
        if stream_id > self.last_id + 2 and len(self._gaps) < _REMEMBERED_GAPS:
            self._gaps[self.last_id + 2] = stream_id - 2
        self.last_id = stream_id
        if stream_id > self.accept_up_to:
            self._remember_reset(stream_id)  # GOAWAY said so; what belongs to it may come all the same
            return None
        if len(self.streams) >= self._limits.concurrent_streams:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM, "too many streams")
        stream = H2Stream(stream_id, self.outbound.peer.initial_window, self._limits.stream_window)
        self.streams[stream_id] = stream
        return stream

    def _end_remote(self, stream: H2Stream) -> None:
        if stream.content_left > 0 and not stream.trailers:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "content-length and DATA differ")
        stream.remote_ended = True
        if stream.incomplete and stream.error is None:
            stream.error = GRPCError(Status.INTERNAL, "the stream ended inside a message")
        if self._client:
            if stream.local_ended:
                self._drop(stream)
            else:  # the server needs no more of the request
                self.cancel(stream, ErrorCode.NO_ERROR)
            self._wake_both(stream)
        elif stream.local_ended:
            self._drop(stream)
        elif stream.reader is not None:
            token, stream.reader = stream.reader, None
            self._wake(token)

    def _abort(self, stream: H2Stream, error: GRPCError) -> None:
        stream.error = error
        stream.remote_ended = stream.local_ended = True
        self._drop(stream)
        self._wake_both(stream)
        self.observer.aborted(stream)

    def _drop(self, stream: H2Stream) -> None:
        """The stream takes no slot any more; messages that came are still there for a client's consumer."""
        if self.streams.pop(stream.id, None) is None:
            return
        self.outbound.forget(stream)
        if self._client:
            self.observer.slots_changed()
        else:
            self.inflow.abandon(stream)

    def _fail_stream(self, fault: StreamFault) -> None:
        """RST_STREAM because the peer broke the stream's rules."""
        if not self._client:
            self._control.pay_reset()
        self._remember_reset(fault.stream_id)
        self._control.reply(frames.rst_stream(fault.stream_id, fault.code))
        stream = self.streams.get(fault.stream_id)
        if stream is not None:
            self._abort(stream, GRPCError(Status.INTERNAL, f"stream error: {fault.message}"))

    def _remember_reset(self, stream_id: int) -> None:
        known = self._reset_ids
        known[stream_id] = None
        if len(known) > _REMEMBERED_RESETS:
            del known[next(iter(known))]

    def _late(self, stream_id: int, what: str) -> None:
        """A frame for a stream that is not open, or not any more."""
        self.check_known(stream_id, what)
        if self._client or stream_id in self._reset_ids:
            self._control.pay_odd()
            return
        if what == "HEADERS" and stream_id not in self.streams:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
        raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, f"{what} on a closed stream")

    def check_known(self, stream_id: int, what: str) -> None:
        """Raise unless the stream has been open at some time."""
        mine = bool(stream_id & 1) is self._client
        newest = self.next_id - 2 if mine else self.last_id
        skipped = any(first <= stream_id <= last for first, last in self._gaps.items())
        if not stream_id or (mine and not self._client) or stream_id > newest or skipped:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {stream_id}, which is idle")

    def _wake_both(self, stream: H2Stream) -> None:
        reader, stream.reader = stream.reader, None
        writer, stream.writer = stream.writer, None
        if reader is not None:
            self._wake(reader)
        if writer is not None and writer is not reader:
            self._wake(writer)

    def peer_goes_away(self, last_id: int, code: int, debug: bytes) -> None:
        """GOAWAY came."""
        if not self._client:
            return  # clients open the streams: there is nothing to stop
        self.refused_above = last_id if self.refused_above is None else min(last_id, self.refused_above)
        for stream in [stream for stream in self.streams.values() if stream.id > last_id]:
            name = debug[:64].decode("latin-1") or f"error code {code}"
            self._abort(stream, ConnectionLost(f"the server went away: {name}", sent=False))
        self.observer.going_away()
