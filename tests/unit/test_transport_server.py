"""The server towards peers that a test plays: draining, idle times, keepalive, flow control."""

from __future__ import annotations

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
    WindowUpdateFrame,
)
from transport_pairs import (
    CHAT,
    PREFACE,
    REQUEST,
    UNARY,
    Ended,
    Peer,
    Raw,
    Service,
    attacked,
    connected,
    unary,
)
from trio.testing import MockClock, memory_stream_pair

from meshnode.transport import KeepAlive, Limits, Server, Status

WIDE = {"INITIAL_WINDOW_SIZE": 1 << 20}


def request_for(method: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [(name, f"/test.Service/{method}" if name == ":path" else value) for name, value in REQUEST] + [
        *more
    ]


async def response(peer: Peer, stream: int) -> tuple[dict[str, str], bytes]:
    """A whole response: its headers and trailers in one, and its body."""
    fields: dict[str, str] = {}
    body = b""
    while True:
        frame = await peer.frame()
        assert frame is not None
        if frame.stream_id != stream:
            continue
        if isinstance(frame, DataFrame):
            body += frame.data
        elif isinstance(frame, HeadersFrame):
            fields |= {str(name): str(value) for name, value in peer.decoder.decode(frame.data)}
        elif isinstance(frame, RstStreamFrame):
            fields["reset"] = str(frame.error_code)
            return fields, body
        if "END_STREAM" in frame.flags:
            return fields, body


class Hang:
    """A handler that answers when it may."""

    def __init__(self) -> None:
        self.running = 0
        self.release = trio.Event()
        self.ends: list[float] = []

    async def __call__(self, stream: Any) -> None:
        self.running += 1
        try:
            await self.release.wait()
            await stream.send_message(Raw(b"done"))
        finally:
            self.ends.append(trio.current_time())


# --- draining


async def test_draining_waits_for_requests_and_closes(autojump_clock: MockClock) -> None:
    hang = Hang()
    server = Server([Service(Hang=(hang, UNARY))])
    async with attacked(server, **WIDE) as peer, trio.open_nursery() as nursery:
        await peer.send(peer.headers(1, request_for("Hang")), peer.message(1, b"", "END_STREAM"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(server.drain)
        assert (await peer.expect(GoAwayFrame)).last_stream_id == 2**31 - 1
        ping = await peer.expect(PingFrame)
        # A request that crossed the GOAWAY is still served; after the round trip the number is final.
        await peer.send(peer.headers(3, request_for("Echo")), peer.message(3, b"late", "END_STREAM"))
        assert (await response(peer, 3))[1][5:] == b"late"
        ack = PingFrame(0, ping.opaque_data)
        ack.flags.add("ACK")
        await peer.send(ack)
        assert (await peer.expect(GoAwayFrame)).last_stream_id == 3
        await peer.send(peer.headers(5, request_for("Echo")), peer.message(5, b"too late", "END_STREAM"))
        assert server.in_flight == 1
        hang.release.set()
        assert (await response(peer, 1))[1][5:] == b"done"
        with pytest.raises(Ended):
            await peer.expect(HeadersFrame, 5)
    assert server.connections == 0


async def test_draining_an_idle_server_returns_at_once(autojump_clock: MockClock) -> None:
    server = Server([Service()])
    async with connected(server) as channel:
        await unary(channel, "Echo")
        before = trio.current_time()
        await server.drain()
        assert trio.current_time() == before


async def test_draining_can_be_given_up(autojump_clock: MockClock) -> None:
    hang = Hang()
    server = Server([Service(Hang=(hang, UNARY))])
    async with connected(server) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(unary, channel, "Hang")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(3) as scope:
            await server.drain()
        assert scope.cancelled_caught
        assert server.in_flight == 1
        nursery.cancel_scope.cancel()


async def test_a_connection_that_comes_while_draining_is_turned_away() -> None:
    server = Server([Service()])
    await server.drain()
    ours, theirs = memory_stream_pair()
    await server.serve_connection(theirs)
    assert await ours.receive_some() == b""


async def test_cancelling_the_server_ends_its_requests(autojump_clock: MockClock) -> None:
    hang = Hang()
    server = Server([Service(Hang=(hang, UNARY))])
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        peer = Peer(ours)
        await peer.greet(client=True)
        await peer.send(peer.headers(1, request_for("Hang"), "END_STREAM"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(hang.ends) == 1
    assert server.in_flight == 0
    assert (await peer.expect(GoAwayFrame)).last_stream_id == 1


# --- idle times


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE, PREFACE + b"\0\0\6\4"])
async def test_a_client_has_to_greet_in_time(said: bytes, autojump_clock: MockClock) -> None:
    server = Server([Service()], limits=Limits(handshake_seconds=7))
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        await ours.send_all(said)
        while await ours.receive_some():
            pass
        assert trio.current_time() == pytest.approx(7)
        await ours.aclose()


async def test_dribbling_a_frame_does_not_keep_a_connection(autojump_clock: MockClock) -> None:
    server = Server([Service()], limits=Limits(header_seconds=5))
    async with attacked(server) as peer:
        frame = peer.headers(1, REQUEST).serialize()
        start = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            for byte in frame:
                await peer.send(bytes((byte,)))
                await trio.sleep(1)
        assert trio.current_time() - start == pytest.approx(6, abs=1.01)


async def test_a_steady_upload_is_no_dribble(autojump_clock: MockClock) -> None:
    async def count(stream: Any) -> None:
        total = 0
        async for message in stream:
            total += len(message)
        await stream.send_message(Raw(b"%d" % total))

    server = Server([Service(Count=(count, CHAT))], limits=Limits(header_seconds=5))
    async with attacked(server) as peer:
        await peer.send(peer.headers(1, request_for("Count")))
        cut = b""
        for number in range(40):  # every write ends in the middle of a frame
            data = cut + peer.message(1, bytes(1000), *(["END_STREAM"] if number == 39 else [])).serialize()
            send, cut = (data, b"") if number == 39 else (data[:-3], data[-3:])
            await peer.send(send)
            await trio.sleep(1)
        assert (await response(peer, 1))[1][5:] == b"40000"


async def test_a_quiet_connection_may_stay(autojump_clock: MockClock) -> None:
    async with attacked(Server([Service()]), **WIDE) as peer:
        await trio.sleep(80_000)
        await peer.send(peer.headers(1, request_for("Echo")), peer.message(1, b"still", "END_STREAM"))
        assert (await response(peer, 1))[1][5:] == b"still"


async def test_keepalive_gives_up_a_client_that_is_gone(autojump_clock: MockClock) -> None:
    hang = Hang()
    server = Server([Service(Hang=(hang, UNARY))], keepalive=KeepAlive(interval=20, patience=10))
    async with attacked(server) as peer:
        await peer.send(peer.headers(1, request_for("Hang"), "END_STREAM"))
        await peer.expect(PingFrame)
        assert trio.current_time() == pytest.approx(20)
        await trio.sleep(11)
        assert hang.ends == [pytest.approx(30)]


# --- flow control


async def test_credit_comes_back_only_for_what_was_taken(autojump_clock: MockClock) -> None:
    take = trio.Event()

    async def lazy(stream: Any) -> None:
        await take.wait()
        async for _ in stream:
            pass
        await stream.send_message(Raw(b""))

    limits = Limits(stream_window=10_000, connection_window=65_535)
    async with attacked(Server([Service(Lazy=(lazy, UNARY))], limits=limits)) as peer:
        await peer.send(peer.headers(1, request_for("Lazy")))
        await peer.send(peer.message(1, bytes(4995)), peer.message(1, bytes(4995)))
        await peer.send(PingFrame(0, b"mark one"))
        credit = await credit_until(peer, b"mark one")
        assert credit == {}
        take.set()
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(PingFrame(0, b"mark two"))
        credit = await credit_until(peer, b"mark two")
        assert credit == {1: 10_000}


async def credit_until(peer: Peer, mark: bytes) -> dict[int, int]:
    credit: dict[int, int] = {}
    while True:
        frame = await peer.frame()
        assert frame is not None
        if isinstance(frame, WindowUpdateFrame):
            credit[frame.stream_id] = credit.get(frame.stream_id, 0) + frame.window_increment
        if isinstance(frame, PingFrame) and frame.opaque_data == mark:
            credit.pop(0, None)
            return credit


async def test_data_of_streams_nobody_reads_gives_the_connections_credit_back() -> None:
    """Otherwise a client could starve its own connection by leaving calls early."""
    limits = Limits(stream_window=60_000, connection_window=65_535)
    async with attacked(Server([Service()], limits=limits), **WIDE) as peer:
        for stream in range(1, 41, 2):
            await peer.send(
                peer.headers(stream, request_for("Chat")),  # unknown: answered and reset
                peer.message(stream, bytes(16_000)),
                RstStreamFrame(stream, error_code=8),
            )
        await peer.send(peer.headers(99, request_for("Echo")), peer.message(99, b"ok", "END_STREAM"))
        assert (await response(peer, 99))[1][5:] == b"ok"


async def test_the_clients_windows_hold_a_response_back(autojump_clock: MockClock) -> None:
    async with attacked(Server([Service()]), INITIAL_WINDOW_SIZE=10) as peer:
        await peer.send(peer.headers(1, request_for("Echo")), peer.message(1, b"0123456789", "END_STREAM"))
        first = await peer.expect(DataFrame, 1)
        assert first.data == b"\0\0\0\0\x0a01234"
        # Shrinking the window below zero is allowed: then 5 + 3 bytes of credit are worth 3.
        await peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 5}))
        await peer.send(WindowUpdateFrame(1, 8))
        assert (await peer.expect(DataFrame, 1)).data == b"567"
        await peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 100}))
        assert (await peer.expect(DataFrame, 1)).data == b"89"
        assert (await response(peer, 1))[0]["grpc-status"] == "0"


async def test_the_connections_window_is_shared_by_all_streams(autojump_clock: MockClock) -> None:
    async with attacked(Server([Service()]), **WIDE) as peer:
        for stream in (1, 3):
            await peer.send(
                peer.headers(stream, request_for("Echo")),
                peer.message(stream, bytes(16_000)),
                peer.message(stream, b"", "END_STREAM"),
            )
        for stream in (5, 7, 9):
            await peer.send(
                peer.headers(stream, request_for("Echo")), peer.message(stream, bytes(16_000), "END_STREAM")
            )
        received = 0
        while received < 65_535:
            received += len((await peer.expect(DataFrame)).data)
        assert received == 65_535
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(WindowUpdateFrame(0, 100_000))
        while received < 5 * 16_005:
            received += len((await peer.expect(DataFrame)).data)


async def test_a_smaller_frame_size_is_kept_to() -> None:
    async with attacked(Server([Service()]), MAX_FRAME_SIZE=20_000, **WIDE) as peer:
        await peer.send(
            peer.headers(1, request_for("Echo")),
            *[peer.message(1, bytes(16_000))],
            SettingsFrame(0, settings={SettingsFrame.MAX_FRAME_SIZE: 16_384}),
            peer.message(1, b"", "END_STREAM"),
        )
        assert len((await peer.expect(DataFrame, 1)).data) == 16_005


async def test_a_client_that_does_not_read_its_answers_gets_no_more_work(autojump_clock: MockClock) -> None:
    """The answers that are ready stay bounded, and later requests wait."""
    handled = 0

    async def handler(stream: Any) -> None:
        nonlocal handled
        handled += 1
        await stream.recv_message()
        await stream.send_message(Raw(bytes(10_000)))

    ours, theirs = memory_stream_pair()
    theirs.send_stream.send_all_hook = trio.sleep_forever  # the network takes nothing more
    server = Server([Service(Big=(handler, UNARY))], limits=Limits(unsent_bytes=100_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        peer = Peer(ours)
        await peer.greet(client=True, INITIAL_WINDOW_SIZE=1 << 30)
        await peer.send(WindowUpdateFrame(0, 1 << 30))
        for stream in range(1, 201, 2):
            await peer.send(peer.headers(stream, request_for("Big")), peer.message(stream, b"", "END_STREAM"))
            await trio.testing.wait_all_tasks_blocked()
        assert handled == 10
        assert server.in_flight == 90
        nursery.cancel_scope.cancel()


# --- requests that are not right


async def test_a_malformed_timeout_is_refused() -> None:
    async with attacked(Server([Service()])) as peer:
        await peer.send(peer.headers(1, request_for("Echo", ("grpc-timeout", "soon")), "END_STREAM"))
        fields, _ = await response(peer, 1)
        assert fields["grpc-status"] == str(Status.INTERNAL.value)


async def test_an_unknown_encoding_is_unimplemented() -> None:
    async with attacked(Server([Service()])) as peer:
        pairs = request_for("Echo", ("grpc-encoding", "snappy"))
        await peer.send(peer.headers(1, pairs), peer.message(1, b"", "END_STREAM"))
        fields, _ = await response(peer, 1)
        assert fields["grpc-status"] == str(Status.UNIMPLEMENTED.value)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"content-type": "text/html"}, "415"),
        ({"content-type": "application/grpcish"}, "415"),
        ({":method": "PUT"}, "405"),
    ],
)
async def test_what_is_not_grpc_is_answered_in_http(changes: dict[str, str], status: str) -> None:
    async with attacked(Server([Service()]), **WIDE) as peer:
        pairs = [(name, changes.get(name, value)) for name, value in REQUEST]
        await peer.send(peer.headers(1, pairs), peer.message(1, bytes(100)))
        fields, _ = await response(peer, 1)
        assert fields[":status"] == status
        await peer.send(peer.message(1, bytes(100), "END_STREAM"))
        await peer.send(peer.headers(3, request_for("Echo")), peer.message(3, b"ok", "END_STREAM"))
        assert (await response(peer, 3))[1][5:] == b"ok"


async def test_a_stream_that_ends_inside_a_message_is_internal() -> None:
    async with attacked(Server([Service()])) as peer:
        frame = DataFrame(1, b"\0\0\0\0\x0aonly")
        frame.flags.add("END_STREAM")
        await peer.send(peer.headers(1, request_for("Echo")), frame)
        fields, _ = await response(peer, 1)
        assert fields["grpc-status"] == str(Status.INTERNAL.value)


async def test_padding_is_paid_for_and_priority_ignored() -> None:
    async with attacked(Server([Service()]), **WIDE) as peer:
        headers = peer.headers(1, request_for("Echo"), "PADDED", "PRIORITY")
        headers.pad_length = 20
        headers.stream_weight = 3
        data = peer.message(1, b"padded", "PADDED", "END_STREAM")
        data.pad_length = 200
        await peer.send(headers, data)
        assert (await response(peer, 1))[1][5:] == b"padded"
