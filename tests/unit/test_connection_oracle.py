"""The sans-io connection against the `h2` package, in both roles, through random histories.

A machine drives both ends through calls, cuts the bytes between them anywhere, and moves windows and settings
in mid-flight. In the end everything that was sent and not reset has arrived, whole and in order, and neither
side has found fault with the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import h2.config
import h2.connection
import h2.events
import h2.settings
from attrs import field, mutable
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from meshnode.transport.connection import Connection
from meshnode.transport.frames import ErrorCode, wire_headers
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.hpack import encode
from meshnode.transport.limits import Limits
from meshnode.transport.messages import frame

Pairs = list[tuple[bytes, bytes]]

REQUEST: Pairs = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/M"), (b":authority", b"a")]
RESPONSE: Pairs = [(b":status", b"200"), (b"content-type", b"application/grpc")]
TRAILERS: Pairs = [(b"grpc-status", b"0")]

names = st.sampled_from([b"x-a", b"x-b", b"traceparent", b"grpc-timeout", b"user-agent"])
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=200).map(str.encode)
extras = st.lists(st.tuples(names, values), max_size=5)
sizes = st.one_of(st.integers(0, 300), st.integers(5_000, 40_000), st.sampled_from([16_379, 16_384, 200_000]))
messages = sizes.map(lambda size: frame(bytes((size % 251,)) * size))
several = st.lists(messages, min_size=1, max_size=6)
picks = st.integers(0, 1000)
resets = st.sampled_from([ErrorCode.CANCEL, ErrorCode.INTERNAL_ERROR, ErrorCode.NO_ERROR])
changes = st.one_of(
    st.tuples(st.just(h2.settings.SettingCodes.INITIAL_WINDOW_SIZE), st.integers(0, 200_000)),
    st.tuples(st.just(h2.settings.SettingCodes.MAX_FRAME_SIZE), st.integers(16_384, 40_000)),
    st.tuples(st.just(h2.settings.SettingCodes.HEADER_TABLE_SIZE), st.integers(0, 8192)),
    st.tuples(st.just(h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE), st.integers(10_000, 100_000)),
)
LIMITS = Limits(stream_window=70_000, connection_window=150_000, settings_burst=10_000, pings_burst=10_000)


@mutable(eq=False)
class Call:
    """What both ends have done on one stream."""

    id: int
    stream: H2Stream | None = None  # our end
    headers: dict[str, Pairs] = field(factory=dict)  # as sent by "them" and "us"
    seen: dict[str, Pairs] = field(factory=dict)  # as received from "them" and "us"
    their_queue: bytes = b""  # not yet given to h2, for want of windows
    their_end: bool = False
    their_sent: list[bytes] = field(factory=list)
    taken: list[bytes] = field(factory=list)
    our_queue: bytes = b""
    our_offset: int = 0
    our_end: bool = False
    our_sent: bytes = b""
    their_received: bytes = b""
    unacknowledged: int = 0
    they_ended: bool = False  # what h2 has sent
    over: bool = False  # reset, from whichever side


class Wire(RuleBasedStateMachine):
    """What both roles share. `ours` is under test, `theirs` is the oracle."""

    client: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        self.outgoing = b""
        self.incoming = b""
        self.unfinished = b""  # of a frame of ours
        self.calls: dict[int, Call] = {}
        self.pings: list[bytes] = []
        self.our_pings: list[bytes] = []
        self.acked: list[bytes] = []
        self.unacknowledged_settings = True
        self.ours = Connection(
            client=self.client, limits=LIMITS, send=self._send, wake=lambda token: None, observer=self
        )
        config = h2.config.H2Configuration(client_side=not self.client, header_encoding=None)
        self.theirs = h2.connection.H2Connection(config)
        self.theirs.initiate_connection()
        if not self.client:
            self.theirs.increment_flow_control_window(1000)
        for _ in range(3):
            self.exchange(100_000, 100_000)
        assert self.ours.greeted

    def _send(self, data: bytes, at_once: bool) -> None:
        self.outgoing += data

    # --- Observer

    def request(self, stream: H2Stream) -> None:
        self.calls[stream.id].stream = stream
        self.calls[stream.id].seen["them"] = list(stream.headers or [])

    def aborted(self, stream: H2Stream) -> None:
        self.calls[stream.id].over = True

    def going_away(self) -> None:
        raise AssertionError("nobody went away")

    def slots_changed(self) -> None:
        pass

    def ping_acked(self, payload: bytes) -> None:
        self.acked.append(payload)

    # --- the wire

    @rule(there=st.integers(0, 50_000), back=st.integers(0, 50_000))
    def exchange(self, there: int, back: int) -> None:
        """Some bytes arrive on each side."""
        part, self.outgoing = self.outgoing[:there], self.outgoing[there:]
        for piece in self._at_frames(part):
            for event in self.theirs.receive_data(piece):
                self._on_event(event)
        self.incoming += self.theirs.data_to_send()
        part, self.incoming = self.incoming[:back], self.incoming[back:]
        if part:
            self.ours.receive(part, 0.0)
            assert self.ours.fault is None, self.ours.fault
        for call in self.calls.values():
            self._look(call)

    def _at_frames(self, part: bytes) -> Iterator[bytes]:
        """The bytes cut where frames end: h2 minds a new frame size only in the next piece it is given."""
        self.unfinished += part
        start = 24 if self.unfinished.startswith(b"PRI") else 0
        given = len(self.unfinished) - len(part)
        while len(self.unfinished) - start >= 9:
            end = start + 9 + int.from_bytes(self.unfinished[start : start + 3], "big")
            if end > len(self.unfinished):
                break
            yield self.unfinished[given:end]
            start = given = end
        if given < len(self.unfinished):
            yield self.unfinished[given:]
        self.unfinished = self.unfinished[start:]

    def _on_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            call = self.calls[event.stream_id]
            call.their_received += event.data
            call.unacknowledged += event.flow_controlled_length
        elif isinstance(event, h2.events.StreamReset):
            self.calls[event.stream_id].over = True
        elif isinstance(event, h2.events.SettingsAcknowledged):
            self.unacknowledged_settings = False
        elif isinstance(event, h2.events.PingAckReceived):
            self.pings.remove(event.ping_data)
        elif isinstance(event, h2.events.ConnectionTerminated):
            raise AssertionError(event)
        elif isinstance(event, h2.events.RequestReceived | h2.events.ResponseReceived):
            self.calls[event.stream_id].seen["us"] = [(bytes(k), bytes(v)) for k, v in event.headers]
        elif isinstance(event, h2.events.TrailersReceived):
            self.calls[event.stream_id].seen["our trailers"] = [
                (bytes(k), bytes(v)) for k, v in event.headers
            ]

    def _look(self, call: Call) -> None:
        """What only shows in our stream's state."""
        stream = call.stream
        if stream is None:
            return
        if self.client and stream.headers is not None:
            call.seen["them"] = list(stream.headers)
        if stream.trailers is not None:
            call.seen["their trailers"] = list(stream.trailers)

    # --- pushing what windows allow

    def _push_theirs(self, call: Call) -> None:
        theirs = self.theirs
        while call.their_queue and not call.over:
            room = min(theirs.local_flow_control_window(call.id), theirs.max_outbound_frame_size)
            part = call.their_queue[: max(0, room)]
            if not part:
                return
            theirs.send_data(call.id, part)
            call.their_queue = call.their_queue[len(part) :]
        if call.their_end and not call.they_ended and not call.over:
            call.they_ended = True
            if self.client:
                call.headers["their trailers"] = TRAILERS
                theirs.send_headers(call.id, TRAILERS, end_stream=True)
            else:
                theirs.end_stream(call.id)

    def _push_ours(self, call: Call) -> None:
        stream = call.stream
        if stream is None or call.over or stream.local_ended or "us" not in call.headers:
            return
        if call.our_offset < len(call.our_queue):
            before = call.our_offset
            call.our_offset = self.ours.outbound.data(stream, call.our_queue, before, end=False)
            call.our_sent += call.our_queue[before : call.our_offset]
        if call.our_end and call.our_offset == len(call.our_queue):
            if self.client:
                self.ours.outbound.data(stream, b"", 0, end=True)
            else:
                call.headers["our trailers"] = TRAILERS
                self.ours.outbound.headers(stream, encode(TRAILERS), end=True)
                self.ours.finished(stream)

    def _pick(self, number: int) -> Call | None:
        live = [call for call in self.calls.values() if not call.over]
        return live[number % len(live)] if live else None

    # --- what either side may do at any time

    @rule(number=picks, batch=several, end=st.booleans())
    def they_send(self, number: int, batch: list[bytes], end: bool) -> None:
        call = self._pick(number)
        if call is not None and not call.their_end and "them" in call.headers:
            call.their_sent += batch
            call.their_queue += b"".join(batch)
            call.their_end = end
            self._push_theirs(call)

    @rule(number=picks, batch=several, end=st.booleans())
    def we_send(self, number: int, batch: list[bytes], end: bool) -> None:
        call = self._pick(number)
        if call is not None and not call.our_end and "us" in call.headers:
            call.our_queue += b"".join(batch)
            call.our_end = end
            self._push_ours(call)

    @rule(number=picks)
    def we_take(self, number: int) -> None:
        call = self._pick(number)
        if call is not None and call.stream is not None:
            self._take(call, call.stream)

    def _take(self, call: Call, stream: H2Stream) -> bool:
        message = stream.pop()
        if message is None:
            self.ours.inflow.starving(stream)
            return False
        self.ours.inflow.taken(stream, message)
        call.taken.append(message)
        return True

    @rule(number=picks)
    def they_take(self, number: int) -> None:
        call = self._pick(number)
        if call is not None:
            self._acknowledge(call)

    def _acknowledge(self, call: Call) -> None:
        if call.unacknowledged:
            self.theirs.acknowledge_received_data(call.unacknowledged, call.id)
            call.unacknowledged = 0

    @rule(change=changes)
    def they_change_settings(self, change: tuple[int, int]) -> None:
        if not self.unacknowledged_settings:  # h2 takes one acknowledgement for all that are on their way
            self.unacknowledged_settings = True
            self.theirs.update_settings(dict([change]))

    @rule(data=st.binary(min_size=8, max_size=8))
    def they_ping(self, data: bytes) -> None:
        self.pings.append(data)
        self.theirs.ping(data)

    @rule(data=st.binary(min_size=8, max_size=8))
    def we_ping(self, data: bytes) -> None:
        self.our_pings.append(data)
        self.ours.ping(data)

    @rule(number=picks, code=resets)
    def they_reset(self, number: int, code: ErrorCode) -> None:
        call = self._pick(number)
        if call is not None and "them" in call.headers and not (call.they_ended and call.our_end):
            self.theirs.reset_stream(call.id, int(code))
            call.over = True

    @rule(number=picks, code=resets)
    def we_reset(self, number: int, code: ErrorCode) -> None:
        call = self._pick(number)
        if call is not None and call.stream is not None:
            self.ours.cancel(call.stream, code)
            call.over = True

    # --- the end

    def teardown(self) -> None:
        while self.unacknowledged_settings:
            self.exchange(1 << 20, 1 << 20)
        # Wider than ever before: h2 gives no credit on windows that a change has made negative.
        self.they_change_settings((h2.settings.SettingCodes.INITIAL_WINDOW_SIZE, 250_000))
        for _ in range(400):
            before = self._progress()
            self.exchange(1 << 20, 1 << 20)
            for call in self.calls.values():
                if call.over:
                    self._acknowledge(
                        call
                    )  # what came before the reset still took from the connection's window
                    continue
                while call.stream is not None and self._take(call, call.stream):
                    pass
                self._acknowledge(call)
                self._push_theirs(call)
                self._push_ours(call)
            if self._progress() == before and not self.outgoing and not self.theirs.data_to_send(0):
                break
        for call in self.calls.values():
            assert call.taken == call.their_sent[: len(call.taken)]
            assert call.our_queue.startswith(call.their_received)
            if not call.over:
                self._check(call)
        assert not self.pings
        assert self.acked == self.our_pings
        assert not self.ours.closed

    def _progress(self) -> tuple[int, ...]:
        calls = self.calls.values()
        return (
            sum(len(call.their_received) + call.our_offset + len(call.taken) for call in calls),
            sum(len(call.their_queue) + call.they_ended + len(call.seen) for call in calls),
        )

    def _check(self, call: Call) -> None:
        assert call.taken == call.their_sent
        assert call.their_received == call.our_queue == call.our_sent
        assert call.seen == call.headers


class ServerAgainstH2(Wire):
    """We serve, h2 calls."""

    client = False

    @rule(extra=extras, end=st.booleans())
    def they_request(self, extra: Pairs, end: bool) -> None:
        number = self.theirs.get_next_available_stream_id()
        call = self.calls[number] = Call(number)
        call.headers["them"] = [*REQUEST, *extra]
        call.their_end = call.they_ended = end
        self.theirs.send_headers(number, call.headers["them"], end_stream=end)

    @rule(number=picks, extra=extras)
    def we_respond(self, number: int, extra: Pairs) -> None:
        call = self._pick(number)
        if call is not None and call.stream is not None and "us" not in call.headers:
            call.headers["us"] = [*RESPONSE, *extra]
            self.ours.outbound.headers(call.stream, encode(call.headers["us"]), end=False)

    @rule(number=picks, message=messages)
    def we_respond_in_one_write(self, number: int, message: bytes) -> None:
        call = self._pick(number)
        if call is None or call.stream is None or "us" in call.headers or not call.stream.remote_ended:
            return
        while self._take(call, call.stream):  # a handler has taken its request before it answers
            pass
        head, tail = wire_headers(encode(RESPONSE), end=False), wire_headers(encode(TRAILERS), end=True)
        if self.ours.outbound.unary(call.stream, head, message, tail):
            call.headers |= {"us": RESPONSE, "our trailers": TRAILERS}
            call.our_queue = call.our_sent = message
            call.our_offset = len(message)
            call.our_end = True
            self.ours.finished(call.stream)


class ClientAgainstH2(Wire):
    """We call, h2 serves."""

    client = True

    @rule(extra=extras)
    def we_request(self, extra: Pairs) -> None:
        stream = self.ours.open()
        if stream is not None:
            call = self.calls[stream.id] = Call(stream.id, stream)
            call.headers["us"] = [*REQUEST, *extra]
            self.ours.outbound.headers(stream, encode(call.headers["us"]), end=False)

    @rule(extra=extras, message=messages)
    def we_request_in_one_write(self, extra: Pairs, message: bytes) -> None:
        stream = self.ours.open()
        if stream is None:
            return
        call = self.calls[stream.id] = Call(stream.id, stream)
        call.headers["us"] = [*REQUEST, *extra]
        head = wire_headers(encode(call.headers["us"]), end=False)
        call.our_queue, call.our_end = message, True
        if self.ours.outbound.unary(stream, head, message, None):
            call.our_sent, call.our_offset = message, len(message)
        else:
            self.ours.outbound.headers(stream, encode(call.headers["us"]), end=False)
            self._push_ours(call)

    @precondition(lambda self: self.calls)
    @rule(number=picks, extra=extras)
    def they_respond(self, number: int, extra: Pairs) -> None:
        call = self._pick(number)
        if call is not None and "us" in call.seen and "them" not in call.headers:
            call.headers["them"] = [*RESPONSE, *extra]
            self.theirs.send_headers(call.id, call.headers["them"])


for machine in (ServerAgainstH2, ClientAgainstH2):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

TestServerAgainstH2 = ServerAgainstH2.TestCase
TestClientAgainstH2 = ClientAgainstH2.TestCase
