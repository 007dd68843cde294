"""The channel: dialling, states, backoff, slots, servers that go away, keepalive, lost connections."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from hypothesis import given
from hypothesis import strategies as st
from transport_pairs import (
    CHAT,
    RESPONSE,
    Peer,
    Raw,
    Service,
    connected,
    request,
    scripted,
    unary,
)
from trio.testing import MockClock, memory_stream_pair

from meshnode.transport import (
    Backoff,
    Channel,
    ChannelState,
    ConnectionLost,
    GRPCError,
    KeepAlive,
    Limits,
    Server,
    Status,
    open_channel,
)

STOP = [("grpc-status", "9"), ("grpc-message", "stop")]
STEADY = Backoff(initial=1, multiplier=2, jitter=0, maximum=5)


class Dialer:
    """Fails until `server` is set; remembers when it was asked."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.server: Server | None = None
        self.times: list[float] = []

    async def __call__(self) -> trio.abc.Stream:
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.server is None:
            raise ConnectionRefusedError("nobody there")
        ours, theirs = memory_stream_pair()
        self.nursery.start_soon(self.server.serve_connection, theirs)
        return ours


async def quiet(_peer: Peer) -> None:
    await trio.sleep_forever()


def state_of(channel: Channel) -> ChannelState:
    return channel.state


async def answer(peer: Peer, stream: int, payload: bytes = b"ok") -> None:
    await peer.send(
        peer.headers(stream, RESPONSE),
        peer.message(stream, payload),
        peer.headers(stream, [("grpc-status", "0")], "END_STREAM"),
    )


# --- dialling


async def test_nothing_is_dialled_before_somebody_needs_it(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery)
        dialer.server = Server([Service()])
        async with open_channel(dialer) as channel:
            await trio.sleep(100)
            assert dialer.times == []
            assert state_of(channel) is ChannelState.IDLE
            assert await unary(channel, "Echo", b"1") == b"1"
            assert await unary(channel, "Echo", b"2") == b"2"
            assert len(dialer.times) == 1
            assert state_of(channel) is ChannelState.READY
        assert state_of(channel) is ChannelState.SHUTDOWN
        with pytest.raises(ConnectionLost) as error:
            await unary(channel, "Echo")
        assert not error.value.sent
        nursery.cancel_scope.cancel()


async def test_a_failed_dial_fails_calls_at_once_until_the_backoff_is_over(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery)
        async with open_channel(dialer, authority="callee:1", backoff=STEADY) as channel:
            with pytest.raises(ConnectionLost, match="callee:1: nobody there") as error:
                await unary(channel, "Echo")
            assert error.value.status is Status.UNAVAILABLE
            assert not error.value.sent
            assert state_of(channel) is ChannelState.TRANSIENT_FAILURE
            with pytest.raises(ConnectionLost):
                await unary(channel, "Echo")
            assert len(dialer.times) == 1
            await trio.sleep(1.01)
            assert state_of(channel) is ChannelState.IDLE
            dialer.server = Server([Service()])
            assert await unary(channel, "Echo", b"back") == b"back"
        nursery.cancel_scope.cancel()


async def test_wait_ready_dials_with_growing_pauses(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery)
        async with open_channel(dialer, backoff=STEADY) as channel:
            with trio.move_on_after(20):
                await channel.wait_ready()
            assert dialer.times == [pytest.approx(time) for time in (0, 1, 3, 7, 12, 17)]
            dialer.server = Server([Service()])
            await channel.wait_ready()
            assert trio.current_time() == pytest.approx(22)
            assert state_of(channel) is ChannelState.READY
        nursery.cancel_scope.cancel()


async def test_a_connection_that_worked_resets_the_backoff(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery)
        async with open_channel(dialer, backoff=STEADY) as channel:
            with trio.move_on_after(6):
                await channel.wait_ready()
            dialer.server = Server([Service()])
            await channel.wait_ready()
            await dialer.server.drain()
            dialer.server = None
            before = len(dialer.times)
            start = trio.current_time()
            with trio.move_on_after(2.5):
                await channel.wait_ready()
            assert dialer.times[before:] == [pytest.approx(start), pytest.approx(start + 1)]
        nursery.cancel_scope.cancel()


async def test_a_server_that_never_greets_is_given_up(autojump_clock: MockClock) -> None:
    async def dial() -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        silent.append(theirs)
        return ours

    silent: list[trio.abc.Stream] = []
    async with open_channel(dial, backoff=Backoff(connect=4)) as channel:
        with pytest.raises(ConnectionLost, match="no connection within 4 s"):
            await unary(channel, "Echo")
    assert trio.current_time() == pytest.approx(4, abs=2)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\6\0\0\0\0\0", b""])
async def test_a_server_that_speaks_something_else(said: bytes) -> None:
    async def dial() -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        await theirs.send_all(said or b"\0")
        await theirs.send_eof()
        return ours

    async with open_channel(dial, authority="odd") as channel:
        with pytest.raises(ConnectionLost, match="cannot connect to odd: the server") as error:
            await unary(channel, "Echo")
    assert not error.value.sent


@given(failures=st.integers(1, 10_000), seed=st.integers())
def test_backoff_stays_in_its_bounds(failures: int, seed: int) -> None:
    backoff = Backoff()
    delay = backoff.delay(failures, random.Random(seed))
    nominal = min(120.0, 1.6 ** min(failures - 1, 60))
    assert nominal * 0.8 <= delay <= nominal * 1.2


# --- losing the connection


async def test_a_lost_connection_ends_its_calls_and_the_next_one_dials(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(HeadersFrame)
        if not lost:
            lost.append(True)
            await peer.stream.aclose()
        else:
            await answer(peer, 1)
            await trio.sleep_forever()

    lost: list[bool] = []
    async with scripted(script) as channel:
        with pytest.raises(ConnectionLost, match="closed the connection") as error:
            await unary(channel, "Echo")
        assert error.value.sent
        assert await unary(channel, "Echo") == b"ok"


async def test_a_server_that_goes_away_gets_no_new_calls_but_ends_the_old(autojump_clock: MockClock) -> None:
    connections: list[int] = []

    async def script(peer: Peer) -> None:
        connections.append(1)
        await peer.expect(HeadersFrame, 1)
        if len(connections) == 1:
            await peer.send(GoAwayFrame(0, last_stream_id=1))
            await going.wait()
        await answer(peer, 1, b"from %d" % len(connections))
        await trio.sleep_forever()

    going = trio.Event()
    results: list[bytes] = []

    async def old_call() -> None:
        results.append(await unary(channel, "Echo"))

    async with scripted(script) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(old_call)
        await trio.testing.wait_all_tasks_blocked()
        assert state_of(channel) is ChannelState.IDLE
        assert await unary(channel, "Echo") == b"from 2"
        assert results == []
        going.set()
    assert results == [b"from 2"]


async def test_whoever_waits_is_told_of_a_server_that_goes_away(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(HeadersFrame, 1)
        await peer.send(GoAwayFrame(0, last_stream_id=1))
        await going.wait()
        await answer(peer, 1)
        await trio.sleep_forever()

    async def watch() -> None:
        await channel.wait_ready()
        await channel.wait_not_ready()
        told.append("not ready")
        await channel.wait_unconnected()
        told.append("unconnected")

    async def call() -> None:
        assert await unary(channel, "Echo") == b"ok"
        told.append("answered")

    going = trio.Event()
    told: list[str] = []
    async with scripted(script) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert told == ["not ready"]
        going.set()
    assert told == ["not ready", "answered", "unconnected"]


async def test_calls_the_server_never_saw_are_repeated(autojump_clock: MockClock) -> None:
    """GOAWAY below their number, or REFUSED_STREAM: no handler ran, so nobody can notice."""
    seen: list[int] = []

    async def script(peer: Peer) -> None:
        headers = await peer.expect(HeadersFrame)
        seen.append(headers.stream_id)
        if len(seen) == 1:
            await peer.send(GoAwayFrame(0, last_stream_id=0))
            return
        await peer.send(RstStreamFrame(headers.stream_id, error_code=7))
        headers = await peer.expect(HeadersFrame)
        seen.append(headers.stream_id)
        await answer(peer, headers.stream_id)
        await trio.sleep_forever()

    async with scripted(script) as channel:
        assert await unary(channel, "Echo") == b"ok"
    assert seen == [1, 1, 3]


async def test_a_server_that_always_refuses_is_believed(autojump_clock: MockClock) -> None:
    refused = 0

    async def script(peer: Peer) -> None:
        nonlocal refused
        while True:
            headers = await peer.expect(HeadersFrame)
            refused += 1
            await peer.send(RstStreamFrame(headers.stream_id, error_code=7))

    async with scripted(script) as channel:
        with pytest.raises(ConnectionLost) as error:
            await unary(channel, "Echo")
        assert not error.value.sent
        with pytest.raises(ConnectionLost):
            await channel.unary_raw([(b":method", b"POST")], b"\0\0\0\0\0")
    assert refused == 12


async def test_a_stream_in_progress_is_not_repeated(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        headers = await peer.expect(HeadersFrame)
        await peer.send(RstStreamFrame(headers.stream_id, error_code=7))
        await trio.sleep_forever()

    async with scripted(script) as channel:
        with pytest.raises(ConnectionLost) as error:
            async with request(channel, "Chat", CHAT) as stream:
                await stream.send_request()
                await stream.recv_message()
        assert not error.value.sent


async def test_keepalive_notices_a_peer_that_is_gone(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(HeadersFrame)
        await peer.expect(PingFrame)
        pinged.append(trio.current_time())
        await trio.sleep_forever()

    pinged: list[float] = []
    keepalive = KeepAlive(interval=30, patience=7)
    async with scripted(script, keepalive=keepalive) as channel:
        with pytest.raises(ConnectionLost, match="keepalive") as error:
            await unary(channel, "Echo")
    assert error.value.sent
    assert pinged == [pytest.approx(30)]
    assert trio.current_time() == pytest.approx(37, abs=1)


async def test_keepalive_leaves_an_idle_channel_alone(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        headers = await peer.expect(HeadersFrame)
        await answer(peer, headers.stream_id)
        with trio.move_on_after(1000):
            await peer.expect(PingFrame)
            pytest.fail("a PING without a call")
        headers = await peer.expect(HeadersFrame)
        await answer(peer, headers.stream_id, b"later")

    async with scripted(script, keepalive=KeepAlive(interval=10, patience=1)) as channel:
        assert await unary(channel, "Echo") == b"ok"
        await trio.sleep(1001)
        assert await unary(channel, "Echo") == b"later"


# --- slots


async def waiting_calls(limit: int, calls: int, **options: Any) -> tuple[list[int], list[bytes]]:
    """How many streams were open at each request, when a server allows `limit`; and the answers."""
    open_streams: list[int] = []
    answers: list[bytes] = []

    async def handler(stream: Any) -> None:
        open_streams.append(server.in_flight)
        await trio.sleep(1)
        await stream.send_message(await stream.recv_message())

    server = Server([Service(Slow=(handler, CHAT))], limits=Limits(concurrent_streams=limit))

    async def call(number: int) -> None:
        answers.append(await unary(channel, "Slow", b"%d" % number))

    async with connected(server, **options) as channel, trio.open_nursery() as nursery:
        await channel.wait_ready()
        for number in range(calls):
            nursery.start_soon(call, number)
    return open_streams, answers


async def test_calls_wait_for_the_servers_slots_in_turn(autojump_clock: MockClock) -> None:
    open_streams, answers = await waiting_calls(3, 10)
    assert max(open_streams) == 3
    assert sorted(answers) == [b"%d" % number for number in range(10)]
    assert trio.current_time() == pytest.approx(4, abs=0.1)


async def test_the_queue_for_slots_is_bounded(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(GRPCError, match="too many calls wait"), flatten_subgroups=True):
        await waiting_calls(1, 5, limits=Limits(waiting_requests=3))


async def test_settings_may_open_slots_while_calls_wait(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await trio.sleep(5)
        await peer.send(SettingsFrame(0, settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 1}))
        await peer.expect(HeadersFrame)
        assert trio.current_time() == pytest.approx(5, abs=0.1)
        await answer(peer, 1)
        await trio.sleep_forever()

    async with scripted(script, {"MAX_CONCURRENT_STREAMS": 0}) as channel:
        assert await unary(channel, "Echo") == b"ok"


async def test_a_waiting_call_can_be_cancelled(autojump_clock: MockClock) -> None:
    async with scripted(quiet, {"MAX_CONCURRENT_STREAMS": 0}) as channel:
        with trio.move_on_after(1):
            await unary(channel, "Echo")
        assert channel.in_flight == 0


# --- responses


async def test_an_informational_response_is_not_the_response() -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(HeadersFrame)
        await peer.send(peer.headers(1, [(":status", "103"), ("link", "x")]))
        await answer(peer, 1)
        await trio.sleep_forever()

    async with scripted(script) as channel:
        assert await unary(channel, "Echo") == b"ok"


async def test_an_http_error_page_is_mapped_to_a_status() -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(HeadersFrame)
        page = DataFrame(1, b"<html>Bad Gateway</html>")
        page.flags.add("END_STREAM")
        await peer.send(peer.headers(1, [(":status", "502"), ("content-type", "text/html")]), page)
        await trio.sleep_forever()

    async with scripted(script) as channel:
        with pytest.raises(GRPCError, match="502") as error:
            await unary(channel, "Echo")
    assert error.value.status is Status.UNAVAILABLE


async def test_trailers_only_may_end_with_an_empty_data_frame() -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(HeadersFrame)
        last = DataFrame(1, b"")
        last.flags.add("END_STREAM")
        await peer.send(peer.headers(1, [*RESPONSE, ("grpc-status", "5"), ("grpc-message", "gone")]), last)
        await trio.sleep_forever()

    async with scripted(script) as channel:
        with pytest.raises(GRPCError, match="gone"):
            await unary(channel, "Echo")


async def test_a_server_may_end_a_call_early(autojump_clock: MockClock) -> None:
    """The rest of the request is reset without an error, and whoever still sends gets the status."""

    async def script(peer: Peer) -> None:
        await peer.expect(HeadersFrame)
        await peer.send(peer.headers(1, [*RESPONSE, *STOP], "END_STREAM"))
        reset = await peer.expect(RstStreamFrame)
        codes.append(reset.error_code)
        await trio.sleep_forever()

    codes: list[int] = []
    async with scripted(script) as channel:
        with pytest.raises(GRPCError, match="stop"):
            async with request(channel, "Chat", CHAT) as stream:
                while True:
                    await stream.send_message(Raw(bytes(10_000)))
        await trio.testing.wait_all_tasks_blocked()
    assert codes == [0]


async def test_leaving_a_stream_resets_it(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(HeadersFrame)
        await peer.send(peer.headers(1, RESPONSE))
        reset = await peer.expect(RstStreamFrame)
        codes.append(reset.error_code)
        done.set()
        await trio.sleep_forever()

    codes: list[int] = []
    done = trio.Event()
    async with scripted(script) as channel:
        async with request(channel, "Chat", CHAT) as stream:
            await stream.send_request()
            await stream.recv_initial_metadata()
        await done.wait()
        assert codes == [8]
        assert channel.in_flight == 0


async def test_closing_the_channel_ends_calls_of_other_tasks(autojump_clock: MockClock) -> None:
    async def call(channel: Channel) -> None:
        with pytest.raises(ConnectionLost):
            await unary(channel, "Echo")
        ended.append(True)

    ended: list[bool] = []
    async with trio.open_nursery() as nursery, scripted(quiet) as channel:
        nursery.start_soon(call, channel)
        await trio.testing.wait_all_tasks_blocked()
    assert ended == [True]
