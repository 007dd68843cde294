"""Frames against hyperframe, and the connection against frames that nobody in their right mind would send."""

from __future__ import annotations

import struct
from typing import Any, final

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.transport import frames
from meshnode.transport.connection import Connection
from meshnode.transport.exceptions import ConnectionFault
from meshnode.transport.frames import ErrorCode
from meshnode.transport.guard import RateGuard
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.hpack import encode
from meshnode.transport.limits import Limits
from meshnode.transport.reader import FrameHandler, FrameReader
from meshnode.transport.settings import announce, parse

stream_ids = st.integers(1, frames.MAX_STREAM_ID)
eight = st.binary(min_size=8, max_size=8)
words = st.integers(0, 2**32 - 1)
REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/s/M"),
    (b"content-type", b"application/grpc"),
]


def parsed(data: bytes) -> list[Any]:
    found: list[Any] = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        found.append(frame)
        data = data[9 + length :]
    return found


# --- what we send


@given(stream_ids, st.binary(max_size=300), st.booleans())
def test_data(stream_id: int, payload: bytes, end: bool) -> None:
    (frame,) = parsed(frames.data(stream_id, payload, end=end))
    assert isinstance(frame, DataFrame)
    assert (frame.stream_id, frame.data, set(frame.flags)) == (
        stream_id,
        payload,
        {"END_STREAM"} if end else set(),
    )


@given(stream_ids, st.binary(max_size=300), st.booleans(), st.integers(1, 400))
def test_headers_are_cut_where_the_peer_wants_it(stream_id: int, block: bytes, end: bool, size: int) -> None:
    first, *rest = parsed(frames.headers(stream_id, block, end=end, frame_size=size))
    assert isinstance(first, HeadersFrame)
    assert all(isinstance(frame, ContinuationFrame) for frame in rest)
    assert {frame.stream_id for frame in [first, *rest]} == {stream_id}
    assert b"".join(frame.data for frame in [first, *rest]) == block
    assert all(len(frame.data) <= size for frame in [first, *rest])
    assert [("END_HEADERS" in frame.flags) for frame in [first, *rest]] == [False] * len(rest) + [True]
    assert ("END_STREAM" in first.flags) == end


@given(stream_ids, st.binary(max_size=300), st.booleans())
def test_a_prepared_block_is_the_same_headers(stream_id: int, block: bytes, end: bool) -> None:
    head, tail = frames.wire_headers(block, end=end)
    assert head + frames.pack_id(stream_id) + tail == frames.headers(
        stream_id, block, end=end, frame_size=16_384
    )


@given(
    stream_ids,
    words,
    st.integers(1, frames.MAX_WINDOW),
    st.binary(min_size=8, max_size=8),
    st.binary(max_size=50),
)
def test_control_frames(stream_id: int, code: int, increment: int, opaque: bytes, debug: bytes) -> None:
    reset, update, ping, pong, away, ack = parsed(
        frames.rst_stream(stream_id, code)
        + frames.window_update(stream_id, increment)
        + frames.ping(opaque)
        + frames.ping(opaque, ack=True)
        + frames.goaway(stream_id, code, debug)
        + frames.SETTINGS_ACK
    )
    assert isinstance(reset, RstStreamFrame)
    assert isinstance(update, WindowUpdateFrame)
    assert isinstance(away, GoAwayFrame)
    assert (reset.stream_id, reset.error_code) == (stream_id, code)
    assert (update.stream_id, update.window_increment) == (stream_id, increment)
    assert (ping.opaque_data, set(ping.flags), pong.opaque_data, set(pong.flags)) == (
        opaque,
        set(),
        opaque,
        {"ACK"},
    )
    assert (away.last_stream_id, away.error_code, away.additional_data) == (stream_id, code, debug)
    assert set(ack.flags) == {"ACK"}


def test_what_we_announce() -> None:
    ours, update = parsed(announce(Limits(), client=False))
    assert ours.settings == {1: 4096, 3: 1024, 4: 262_144, 5: 16_384, 6: 65_536}
    assert update.window_increment + 65_535 == Limits().connection_window
    (theirs,) = parsed(announce(Limits(connection_window=65_535), client=True))
    assert theirs.settings[SettingsFrame.ENABLE_PUSH] == 0
    assert SettingsFrame.MAX_CONCURRENT_STREAMS not in theirs.settings


# --- what we receive


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (2, 2, ErrorCode.PROTOCOL_ERROR),
        (4, 2**31, ErrorCode.FLOW_CONTROL_ERROR),
        (5, 16_383, ErrorCode.PROTOCOL_ERROR),
        (5, 2**24, ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_settings_out_of_range(key: int, value: int, code: ErrorCode) -> None:
    with pytest.raises(ConnectionFault) as fault:
        list(parse(struct.pack(">HL", key, value)))
    assert fault.value.code is code


@given(st.lists(st.tuples(st.integers(7, 65_535), words)))
def test_unknown_settings_are_kept_in_order(entries: list[tuple[int, int]]) -> None:
    assert list(parse(b"".join(struct.pack(">HL", *entry) for entry in entries))) == entries


def padded(frame: Any, padding: int) -> Any:
    if padding >= 0:
        frame.flags.add("PADDED")
        frame.pad_length = padding
    return frame


@st.composite
def sent(draw: st.DrawFn) -> tuple[list[tuple[Any, ...]], bytes]:
    """What a reader should see, and its bytes as hyperframe writes them."""
    seen: list[tuple[Any, ...]] = []
    data = b""
    for _ in range(draw(st.integers(0, 6))):
        stream_id, payload = draw(stream_ids), draw(st.binary(max_size=40))
        match draw(st.integers(0, 3)):
            case 0:
                seen.append(("data", stream_id, payload))
                data += padded(DataFrame(stream_id, payload), draw(st.integers(-1, 60))).serialize()
            case 1:
                cut = draw(st.integers(0, len(payload)))
                whole = draw(st.booleans())
                frame = padded(
                    HeadersFrame(stream_id, payload if whole else payload[:cut]), draw(st.integers(-1, 60))
                )
                if draw(st.booleans()):
                    frame.flags.add("PRIORITY")
                    frame.stream_weight = 7
                if whole:
                    frame.flags.add("END_HEADERS")
                data += frame.serialize()
                if not whole:
                    rest = ContinuationFrame(stream_id, payload[cut:])
                    rest.flags.add("END_HEADERS")
                    data += rest.serialize()
                seen.append(("block", stream_id, payload))
            case 2:
                opaque = (payload + bytes(8))[:8]
                seen.append(("ping", 0, opaque))
                data += PingFrame(0, opaque).serialize()
            case _:
                seen.append(("priority", stream_id, None))
                data += PriorityFrame(stream_id, depends_on=0, stream_weight=1).serialize()
    return seen, data


@given(sent(), st.lists(st.integers(1, 50), max_size=30))
def test_frames_arrive_whole_however_they_are_cut(
    what: tuple[list[tuple[Any, ...]], bytes], sizes: list[int]
) -> None:
    expected, data = what
    seen: list[tuple[Any, ...]] = []

    def data_frame(flags: int, stream_id: int, buffer: bytes, start: int, end: int) -> None:
        if flags & frames.PADDED:
            end -= buffer[start]
            start += 1
        seen.append(("data", stream_id, buffer[start:end]))

    def ping(_flags: int, stream_id: int, buffer: bytes, start: int, end: int) -> None:
        seen.append(("ping", stream_id, buffer[start:end]))

    def priority(_flags: int, stream_id: int, _buffer: bytes, _start: int, _end: int) -> None:
        seen.append(("priority", stream_id, None))

    def nothing(_flags: int, _stream_id: int, _buffer: bytes, _start: int, _end: int) -> None:
        pass

    handlers: dict[frames.FrameType, FrameHandler] = {
        **dict.fromkeys(frames.FrameType, nothing),
        frames.FrameType.DATA: data_frame,
        frames.FrameType.PING: ping,
        frames.FrameType.PRIORITY: priority,
    }
    reader = FrameReader(
        handlers,
        lambda _flags, stream_id, block: seen.append(("block", stream_id, block)),
        lambda fault: pytest.fail(str(fault)),
        nothing,
        preface=frames.PREFACE,
        limits=Limits(),
    )
    data = frames.PREFACE + SettingsFrame(0).serialize() + data
    for size in sizes:
        reader.feed(data[:size])
        data = data[size:]
    reader.feed(data)
    assert seen == expected
    assert not reader.mid_frame


# --- nonsense


@final
class Watcher:
    """An observer that takes part in nothing but remembers what it was told."""

    def __init__(self) -> None:
        self.requests: list[H2Stream] = []
        self.aborted_streams: list[H2Stream] = []

    def request(self, stream: H2Stream) -> None:
        self.requests.append(stream)

    def aborted(self, stream: H2Stream) -> None:
        self.aborted_streams.append(stream)

    def going_away(self) -> None:
        pass

    def slots_changed(self) -> None:
        pass

    def ping_acked(self, payload: bytes) -> None:
        pass


blocks = st.one_of(
    st.binary(max_size=40),
    st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4).map(encode),
    st.just(encode(REQUEST)),
)
payloads = st.one_of(blocks, st.binary(max_size=20), words.map(lambda word: word.to_bytes(4, "big")))
few_ids = st.one_of(st.integers(0, 9), words)
nonsense = st.lists(
    st.builds(frames.frame, st.integers(0, 11), st.integers(0, 255), few_ids, payloads), max_size=25
)


@settings(max_examples=150)
@given(nonsense, st.booleans(), st.integers(0, 3))
def test_nonsense_never_raises_and_never_costs_more_than_the_limits(
    what: list[bytes], client: bool, opened: int
) -> None:
    sent_bytes: list[bytes] = []
    watcher = Watcher()
    limits = Limits(stream_window=100, concurrent_streams=3)
    connection = Connection(
        client=client,
        limits=limits,
        send=lambda data, _at_once: sent_bytes.append(data),
        wake=lambda token: None,
        observer=watcher,
    )
    for _ in range(opened if client else 0):
        stream = connection.open()
        assert stream is not None
        connection.outbound.headers(stream, encode(REQUEST), end=False)
    connection.receive((b"" if client else frames.PREFACE) + SettingsFrame(0).serialize(), 0.0)
    for number, data in enumerate(what):
        connection.receive(data, float(number))
        assert len(connection.streams) <= 3
        assert connection.inflow.window <= limits.connection_window
        assert all(0 <= stream.received <= 100 for stream in connection.streams.values())
    if connection.closed:
        assert connection.fault is not None
        assert not connection.streams
        assert isinstance(parsed(b"".join(sent_bytes).removeprefix(frames.PREFACE))[-1], GoAwayFrame)
    else:
        parsed(b"".join(sent_bytes).removeprefix(frames.PREFACE))  # what we answer is frames, always


def test_a_setting_said_many_times_is_applied_once() -> None:
    """A change of the initial window touches every stream: thousands in one frame would be an attack."""
    applied: list[bytes] = []
    connection = Connection(
        client=True,
        limits=Limits(),
        send=lambda data, _at_once: None,
        wake=applied.append,
        observer=Watcher(),
    )
    stream = connection.open()
    assert stream is not None
    entries = b"".join(struct.pack(">HL", 4, size) for size in range(70_000, 72_000))
    stream.writer = b"a task"
    connection.receive(frames.frame(frames.FrameType.SETTINGS, 0, 0, entries), 0.0)
    assert stream.send_window == 71_999
    assert applied == [b"a task"]


# --- rates


@given(st.floats(0.1, 100), st.integers(1, 50), st.lists(st.floats(0, 10), max_size=100))
def test_a_guard_allows_its_burst_and_then_its_rate(rate: float, burst: int, pauses: list[float]) -> None:
    guard = RateGuard(rate, burst)
    now = 0.0
    allowed = 0
    for pause in pauses:
        now += pause
        allowed += guard.spend(now)
        assert allowed <= burst + now * rate + 1e-6
    assert guard.spend(now + burst / rate + 1)


def test_a_guard_refuses_what_comes_at_once_beyond_its_burst() -> None:
    guard = RateGuard(2, 5)
    assert [guard.spend(1.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [guard.spend(2.0) for _ in range(3)] == [True, True, False]
