"""An HTTP/2 connection restricted to what gRPC needs, for either role, without any I/O.

Theory of operation. `receive` takes bytes and the time; it changes streams, wakes whoever waits for them, and
tells its observer about what concerns more than one stream. Bytes for the peer leave through the `send`
callback, either from here (answers to the peer's frames) or from `outbound` (what callers send).

    reader     bytes -> frames and header blocks
    control    SETTINGS, PING, GOAWAY, WINDOW_UPDATE, PRIORITY, and what abuse costs
    roles      what header blocks mean to a server and to a client
    inflow     receive windows: credit goes back when a consumer took the data
    outbound   frames -> bytes, bounded by the peer's windows and settings
    history    streams that are gone
    this       streams: DATA, RST_STREAM, and how they end

A ConnectionFault ends the connection: GOAWAY, every stream aborted, `closed` set. A StreamFault ends one
stream: RST_STREAM, the rest goes on. Nothing a peer sends raises out of `receive`.

Sans-io; imports the modules of this package that are sans-io too.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol, final

from grpclib.const import Status

from meshnode.transport import frames
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
from meshnode.transport.history import History
from meshnode.transport.hpack import Decoder
from meshnode.transport.inflow import Inflow
from meshnode.transport.limits import Limits
from meshnode.transport.outbound import Outbound, Send, Wake
from meshnode.transport.reader import FrameReader, unpad
from meshnode.transport.roles import client_block, server_block
from meshnode.transport.settings import announce

__all__ = ["Connection", "Observer"]


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
        "_reader",
        "_wake",
        "accept_up_to",
        "closed",
        "control",
        "decoder",
        "fault",
        "history",
        "inflow",
        "last_id",
        "limits",
        "next_id",
        "now",
        "observer",
        "outbound",
        "refused_above",
        "streams",
    )

    def __init__(self, *, client: bool, limits: Limits, send: Send, wake: Wake, observer: Observer) -> None:
        self._client = client
        self._wake = wake
        self.limits = limits
        self.observer = observer
        self.streams: dict[int, H2Stream] = {}
        self.outbound = Outbound(self.streams, send, wake)
        self.inflow = Inflow(limits, send)
        self.control = Control(self, limits)
        self.decoder = Decoder(limits.header_table_size)
        self.history = History()
        self.closed = False
        self.fault: ConnectionFault | None = None
        self.now = 0.0  # when bytes came last
        self.last_id = 0  # the newest stream the peer opened
        self.next_id = 1  # the next stream we open
        self.accept_up_to = frames.MAX_STREAM_ID  # as our GOAWAY said
        self.refused_above: int | None = None  # as the peer's GOAWAY said
        self._reader = self._make_reader()
        send((frames.PREFACE if client else b"") + announce(limits, client=client), True)

    def _make_reader(self) -> FrameReader:
        control = self.control
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
        return FrameReader(
            handlers,
            partial(client_block if self._client else server_block, self),
            self._fail_stream,
            control.unknown,
            preface=b"" if self._client else frames.PREFACE,
            limits=self.limits,
        )

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
        self.control.flushed()

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

    @property
    def usable(self) -> bool:
        """Client: whether there will ever be new streams."""
        return self.refused_above is None and not self.closed and self.next_id <= frames.MAX_STREAM_ID

    def open(self) -> H2Stream | None:
        """Client: a new stream; None while the peer allows no more of them, or none at all."""
        peer = self.outbound.peer
        stream_id = self.next_id
        if len(self.streams) >= peer.max_streams or not self.usable:
            return None
        self.next_id = stream_id + 2
        stream = H2Stream(stream_id, peer.initial_window, self.limits.stream_window)
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
            self.history.reset(stream.id)
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
        stream = self.streams.get(stream_id)
        if stream is None or stream.remote_ended:
            self.inflow.charge(size)
            self.inflow.refund(size)
            self.late(stream_id, "DATA")
            return
        self.inflow.charge(size, stream)
        if flags & frames.PADDED:
            start, end = unpad(data, start, end)
            self.inflow.refund_stream(stream, size - (end - start))
            size = end - start
        ended = flags & frames.END_STREAM
        if stream.content_left >= 0:
            stream.content_left -= size
            if stream.content_left < 0:
                raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "more DATA than content-length")
        if size:
            self._deliver(stream, data[start:end])
        elif not ended:
            self.control.pay_empty()
        if ended:
            self.end_remote(stream)

    def _deliver(self, stream: H2Stream, payload: bytes) -> None:
        if stream.headers is None:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "DATA before HEADERS")
        if stream.discarding:
            self.inflow.refund(len(payload))
            return
        stream.received += len(payload)
        try:
            stream.accept(payload, self.limits.message_size)
        except GRPCError as error:
            stream.error = error
            self.discard(stream)
            self._wake_both(stream)
            return
        token = stream.reader
        if token is None:
            return
        if stream.first is None:
            self.inflow.starving(stream)
        else:
            stream.reader = None
            self._wake(token)

    def _rst_stream(self, _flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on stream 0")
        if end - start != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM that is not 4 bytes long")
        stream = self.streams.get(stream_id)
        if stream is None:
            self.check_known(stream_id, "RST_STREAM")
            self.control.pay_odd()
            return
        if not self._client:
            self.control.pay_reset()
        self._abort(stream, reset_error(int.from_bytes(data[start:end], "big")))

    def peer_goes_away(self, last_id: int, code: int, debug: bytes) -> None:
        """GOAWAY came."""
        if not self._client:
            return  # clients open the streams: there is nothing to stop
        self.refused_above = last_id if self.refused_above is None else min(last_id, self.refused_above)
        for stream in [stream for stream in self.streams.values() if stream.id > last_id]:
            name = debug[:64].decode("latin-1") or f"error code {code}"
            self._abort(stream, ConnectionLost(f"the server went away: {name}", sent=False))
        self.observer.going_away()

    # --- how streams end

    def end_remote(self, stream: H2Stream) -> None:
        """END_STREAM came."""
        if stream.content_left > 0:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "less DATA than content-length")
        stream.remote_ended = True
        if stream.assembler is not None and not stream.assembler.empty and stream.error is None:
            stream.error = GRPCError(Status.INTERNAL, "the stream ended inside a message")
        if self._client:
            if stream.local_ended:
                self._drop(stream)
            else:  # the server needs no more of the request
                self.cancel(stream, ErrorCode.NO_ERROR)
            self._wake_both(stream)
        elif stream.local_ended:
            self._drop(stream)
        else:
            self.wake_reader(stream)

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
        if stream.stalled:
            self.outbound.forget(stream)
        if self._client:
            self.observer.slots_changed()
        elif stream.received:
            self.inflow.abandon(stream)

    def _fail_stream(self, fault: StreamFault) -> None:
        """RST_STREAM because the peer broke the stream's rules."""
        if not self._client:
            self.control.pay_reset()
        self.history.reset(fault.stream_id)
        self.control.reply(frames.rst_stream(fault.stream_id, fault.code))
        stream = self.streams.get(fault.stream_id)
        if stream is not None:
            self._abort(stream, GRPCError(Status.INTERNAL, f"stream error: {fault.message}"))

    def late(self, stream_id: int, what: str) -> None:
        """A frame for a stream that is not open, or whose peer has ended it."""
        self.check_known(stream_id, what)
        if self._client or self.history.was_reset(stream_id):
            self.control.pay_odd()
            return
        if what == "HEADERS":
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
        raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, f"{what} on a closed stream")

    def check_known(self, stream_id: int, what: str) -> None:
        """Raise unless the stream has been open at some time."""
        opened_by_client = stream_id & 1
        newest = self.next_id - 2 if self._client else self.last_id
        if not opened_by_client or stream_id > newest or self.history.was_skipped(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {stream_id}, which is idle")

    # --- waking

    def wake_reader(self, stream: H2Stream) -> None:
        """There is something to read, or will never be."""
        token = stream.reader
        if token is not None:
            stream.reader = None
            self._wake(token)

    def _wake_both(self, stream: H2Stream) -> None:
        self.wake_reader(stream)
        token = stream.writer
        if token is not None:
            stream.writer = None
            self._wake(token)
