"""Our channel against other implementations' servers, over real sockets."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, final

import pytest
import trio
from attrs import field, mutable
from peers.service_rules import METHODS, SERVICE
from wire_peers import Peer
from wire_service import SHAPES, Raw

from meshnode.transport import Channel, GRPCError, Status, open_channel

SERVERS = ["server_grpcio.py", "server_grpcio_aio.py", "server_grpclib.py"]
GRPCIO = SERVERS[:2]
MIB = 1024 * 1024


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, peer: Callable[[str], Peer]) -> Peer:
    return peer(request.param)


@pytest.fixture(params=GRPCIO)
def grpcio_server(request: pytest.FixtureRequest, peer: Callable[[str], Peer]) -> Peer:
    return peer(request.param)


@asynccontextmanager
async def started(server: Peer, **options: Any) -> AsyncIterator[str]:
    port = await server.ask("start", **options)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        with trio.CancelScope(shield=True):
            await server.ask("stop", port=port)


@asynccontextmanager
async def connected(server: Peer, **options: Any) -> AsyncIterator[Channel]:
    async with started(server, **options) as target, open_channel(target) as channel:
        yield channel


@final
@mutable
class Result:
    replies: list[bytes] = field(factory=list)
    status: Status = Status.OK
    message: str | None = None
    details: Any = None
    initial: list[tuple[str, Any]] = field(factory=list)
    trailing: list[tuple[str, Any]] = field(factory=list)


def plain(metadata: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in (metadata or {}).items() if key.startswith("x-")]


def request(channel: Channel, method: str, **options: Any) -> Any:
    return channel.request(f"/{SERVICE}/{method}", SHAPES[METHODS.get(method, "uu")], Raw, Raw, **options)


async def call(channel: Channel, method: str, *messages: bytes, **options: Any) -> Result:
    result = Result()
    stream = request(channel, method, **options)
    try:
        async with stream:
            for number, message in enumerate(messages, 1):
                await stream.send_message(Raw(message), end=number == len(messages))
            while (reply := await stream.recv_message()) is not None:
                result.replies.append(reply)
            await stream.recv_trailing_metadata()
    except GRPCError as error:
        result.status, result.message, result.details = error.status, error.message, error.details
    result.initial = plain(stream.initial_metadata)
    result.trailing = plain(stream.trailing_metadata)
    return result


async def finish(stream: Any) -> None:
    while await stream.recv_message() is not None:
        pass
    await stream.end()
    await stream.recv_trailing_metadata()


async def hangs(server: Peer) -> int:
    return int((await server.ask("stats")).get("cancelled", 0))


async def until(look: Callable[[], Awaitable[Any]], found: Callable[[Any], bool]) -> None:
    """Ask until the answer is the one wanted: another process gives us nothing to wait for."""
    while not found(await look()):
        await trio.lowlevel.checkpoint()


async def until_cancelled(server: Peer, before: int) -> None:
    await until(lambda: hangs(server), lambda count: count > before)


@pytest.mark.parametrize(
    ("method", "messages", "replies"),
    [
        ("Echo", [b"hello"], [b"hello"]),
        ("Echo", [b""], [b""]),
        ("Collect", [b"a", b"", b"bc"], [b"abc"]),
        ("Spread", [b"5"], [b"0", b"1", b"2", b"3", b"4"]),
        ("Spread", [b"0"], []),
        ("Chat", [b"a", b"b", b"", b"c"], [b"a", b"b", b"", b"c"]),
    ],
)
async def test_every_shape(server: Peer, method: str, messages: list[bytes], replies: list[bytes]) -> None:
    async with connected(server) as channel:
        result = await call(channel, method, *messages)
    assert (result.status, result.replies) == (Status.OK, replies)


async def test_a_conversation(server: Peer) -> None:
    """Each message is answered before the next one is sent."""
    async with connected(server) as channel, request(channel, "Chat") as stream:
        await stream.send_request()
        for number in range(10):
            await stream.send_message(Raw(b"%d" % number))
            assert await stream.recv_message() == b"%d" % number
        await stream.end()
        assert await stream.recv_message() is None
        await stream.recv_trailing_metadata()


@pytest.mark.parametrize("method", ["Echo", "Collect", "Spread", "Chat"])
async def test_metadata_both_ways(server: Peer, method: str) -> None:
    metadata: list[tuple[str, Any]] = [
        ("x-initial-text", "plain text, with % and ~"),
        ("x-initial-bin", bytes(range(256))),
        ("x-initial-twice", "one"),
        ("x-initial-twice", "two"),
        ("x-trailing-text", "later"),
        ("x-trailing-bin", b""),
        ("x-trailing-bin", b"\xff"),
    ]
    async with connected(server) as channel:
        result = await call(channel, method, b"1", metadata=metadata)
    assert result.status is Status.OK
    assert result.initial == metadata[:4]
    assert result.trailing == metadata[4:]


@pytest.mark.parametrize("method", ["Echo", "Collect", "Spread", "Chat"])
async def test_statuses_messages_and_details(server: Peer, method: str) -> None:
    message = "no café: 5% ☃\n\ttabs"
    metadata: list[tuple[str, Any]] = [
        ("x-fail", "9"),
        ("x-message-bin", message.encode()),
        ("x-details-bin", b"\x08\x09\x12\x01x"),
        ("x-trailing-why", "because"),
    ]
    async with connected(server) as channel:
        result = await call(channel, method, b"2", metadata=metadata)
    assert (result.status, result.message) == (Status.FAILED_PRECONDITION, message)
    assert result.details == b"\x08\x09\x12\x01x"
    assert result.trailing == [("x-trailing-why", "because")]
    assert result.replies == ([b"0", b"1"] if method == "Spread" else [b"2"] if method == "Chat" else [])


async def test_every_status_code(peer: Callable[[str], Peer]) -> None:
    async with connected(peer(SERVERS[0])) as channel:
        for code in range(1, 17):
            result = await call(channel, "Echo", b"", metadata=[("x-fail", str(code))])
            assert result.status.value == code


async def test_two_hundred_calls_at_once(server: Peer) -> None:
    results: list[Result] = []

    async def one() -> None:
        results.append(await call(channel, "Echo", b"x" * 1000))

    async with connected(server) as channel:
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(one)
        assert channel.in_flight == 0
    assert [(result.status, result.replies) for result in results] == [(Status.OK, [b"x" * 1000])] * 200


async def test_more_calls_than_the_server_takes_at_once_wait_their_turn(grpcio_server: Peer) -> None:
    results: list[Result] = []

    async def one() -> None:
        results.append(await call(channel, "Echo", b"a"))

    limit = {"grpc.max_concurrent_streams": 3}
    async with connected(grpcio_server, options=limit) as channel, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one)
    assert [result.status for result in results] == [Status.OK] * 50


@pytest.mark.parametrize("method", ["Echo", "Collect", "Chat"])
async def test_a_mebibyte(server: Peer, method: str) -> None:
    message = bytes(range(256)) * (MIB // 256)
    async with connected(server) as channel:
        result = await call(channel, method, message)
    assert result.replies == [message]


async def test_many_large_messages_to_the_server(server: Peer) -> None:
    async with connected(server) as channel:
        result = await call(channel, "Collect", *[b"m" * (300 * 1024)] * 12)
        assert result.replies == [b"m" * (12 * 300 * 1024)]
        spread = await call(channel, "Spread", b"12", metadata=[("x-size", str(300 * 1024))])
    assert [len(reply) for reply in spread.replies] == [300 * 1024 + len(str(n)) for n in range(12)]


async def test_a_slow_reader_holds_the_server_back_and_nobody_else(server: Peer) -> None:
    """64 MiB are on offer; the stream's window is all that comes until someone reads."""
    async with connected(server) as channel:
        stream = request(channel, "Spread", metadata=[("x-size", str(MIB))])
        async with stream:
            await stream.send_message(Raw(b"64"), end=True)
            assert await stream.recv_message() is not None
            for _ in range(20):
                assert (await call(channel, "Echo", b"meanwhile")).replies == [b"meanwhile"]
            rest = [message async for message in stream]
            await stream.recv_trailing_metadata()
        assert len(rest) == 63


async def test_a_reply_over_the_limit(server: Peer) -> None:
    async with connected(server) as channel:
        result = await call(channel, "Spread", b"1", metadata=[("x-size", str(4 * MIB))])
        assert result.status is Status.RESOURCE_EXHAUSTED
        assert result.message is not None
        assert "received message larger than max (4194305 vs. 4194304)" in result.message
        assert (await call(channel, "Echo", b"still there")).replies == [b"still there"]


@pytest.mark.parametrize("method", ["Echo", "Collect", "Chat"])
async def test_a_request_over_the_servers_limit(grpcio_server: Peer, method: str) -> None:
    """The server ends the call while we still send; what it says is what the caller gets."""
    async with connected(grpcio_server) as channel:
        result = await call(channel, method, *[b"x" * (4 * MIB + 1)] * (1 if method == "Echo" else 4))
        assert result.status is Status.RESOURCE_EXHAUSTED
        assert (await call(channel, "Echo", b"still there")).replies == [b"still there"]


async def test_an_unknown_method(server: Peer) -> None:
    async with connected(server) as channel:
        assert (await call(channel, "Missing", b"x")).status is Status.UNIMPLEMENTED


async def test_leaving_a_call_cancels_it(server: Peer) -> None:
    before = await hangs(server)
    async with connected(server) as channel:
        async with request(channel, "Hang") as stream:
            await stream.send_request()
            await stream.recv_initial_metadata()
        await until_cancelled(server, before)
        assert (await call(channel, "Echo", b"next")).replies == [b"next"]
        assert channel.in_flight == 0


async def test_cancelling_the_caller_cancels_the_call(server: Peer) -> None:
    before = await hangs(server)
    async with connected(server) as channel:
        with trio.CancelScope() as scope:
            async with request(channel, "Hang") as stream:
                await stream.send_request()
                await stream.recv_initial_metadata()
                scope.cancel()
                await stream.recv_message()
        assert scope.cancelled_caught
        await until_cancelled(server, before)
        assert channel.in_flight == 0


async def test_a_deadline_ends_both_sides(server: Peer) -> None:
    before = await hangs(server)
    async with connected(server) as channel:
        await call(channel, "Echo", b"connect")
        result = await call(channel, "Hang", b"x", timeout=0.5)
        assert result.status is Status.DEADLINE_EXCEEDED
        await until_cancelled(server, before)
        assert (await call(channel, "Echo", b"next")).replies == [b"next"]


async def test_deadlines_and_answers_race(server: Peer) -> None:
    ends: set[Status] = set()

    async def one(timeout: float) -> None:
        ends.add((await call(channel, "Chat", *[b"x" * 2000] * 20, timeout=timeout)).status)

    async with connected(server) as channel:
        for timeout in (0.0, 0.001, 0.003, 0.006, 0.01, 0.02):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(one, timeout)
        assert ends <= {Status.OK, Status.DEADLINE_EXCEEDED, Status.CANCELLED}
        assert (await call(channel, "Echo", b"next")).replies == [b"next"]
        assert channel.in_flight == 0


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
@pytest.mark.parametrize("method", ["Echo", "Spread", "Chat"])
async def test_compressed_replies(grpcio_server: Peer, compression: str, method: str) -> None:
    text = b"1" if method == "Spread" else b"compressible " * 1000
    async with connected(grpcio_server, compression=compression) as channel:
        result = await call(channel, method, text, metadata=[("x-size", "5000")])
    assert result.status is Status.OK
    assert result.replies == ([b"0" + b"." * 5000] if method == "Spread" else [text])


# --- raw calls, as a proxy makes them


def raw_headers(method: str, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/{SERVICE}/{method}".encode()),
        (b":authority", b"test"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]


async def test_a_raw_unary_call(server: Peer) -> None:
    async with connected(server) as channel:
        response = await channel.unary_raw(raw_headers("Echo"), b"\0\0\0\0\x02hi")
        assert response.frame == b"\0\0\0\0\x02hi"
        assert response.headers.get(b":status") == b"200"
        assert response.trailers.get(b"grpc-status") == b"0"
        failed = await channel.unary_raw(raw_headers("Echo", (b"x-fail", b"5")), b"\0\0\0\0\0")
        assert (failed.frame, failed.trailers.get(b"grpc-status")) == (None, b"5")


async def test_a_raw_conversation(server: Peer) -> None:
    async with connected(server) as channel:
        async with channel.open_raw(raw_headers("Chat")) as raw:
            for text in (b"a", b"b"):
                await raw.send_frame(b"\0\0\0\0\1" + text)
                assert await raw.receive_frame() == b"\0\0\0\0\1" + text
            assert (await raw.headers()).get(b":status") == b"200"
            await raw.end()
            assert await raw.receive_frame() is None
            assert raw.trailers.get(b"grpc-status") == b"0"
        assert channel.in_flight == 0


async def test_cancelling_a_raw_unary_call_resets_it(server: Peer) -> None:
    before = await hangs(server)
    async with connected(server) as channel:
        await channel.wait_ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.unary_raw, raw_headers("Hang"), b"\0\0\0\0\0")
            await until(lambda: server.ask("stats"), lambda stats: stats.get("hanging", 0) > before)
            nursery.cancel_scope.cancel()
        await until_cancelled(server, before)
        assert channel.in_flight == 0


# --- the connection


async def test_nobody_there() -> None:
    async with open_channel("127.0.0.1:1") as channel:
        with pytest.raises(GRPCError) as error:
            await channel.unary_raw(raw_headers("Echo"), b"\0\0\0\0\0")
    assert error.value.status is Status.UNAVAILABLE
    assert error.value.sent is False  # type: ignore[attr-defined]


async def test_a_server_that_goes_and_comes_back(grpcio_server: Peer) -> None:
    async with started(grpcio_server) as target:
        port = int(target.rpartition(":")[2])
        async with open_channel(target) as channel:
            assert (await call(channel, "Echo", b"one")).replies == [b"one"]
            await grpcio_server.ask("stop", port=port)
            down = await call(channel, "Echo", b"two")
            assert down.status is Status.UNAVAILABLE
            again = await grpcio_server.ask("start", address=target)
            assert again == port
            with trio.fail_after(30):
                await channel.wait_ready()
            assert (await call(channel, "Echo", b"three")).replies == [b"three"]


async def test_calls_in_flight_end_when_the_server_stops(grpcio_server: Peer) -> None:
    async with started(grpcio_server) as target, open_channel(target) as channel:
        async with request(channel, "Hang") as stream:
            await stream.send_request()
            await stream.recv_initial_metadata()
            port = int(target.rpartition(":")[2])
            await grpcio_server.ask("stop", port=port)
            with pytest.raises(GRPCError) as error:
                await finish(stream)
            assert error.value.status in (Status.UNAVAILABLE, Status.CANCELLED)
        assert await grpcio_server.ask("start", address=target) == port


async def test_a_graceful_stop_lets_calls_end(grpcio_server: Peer) -> None:
    async with started(grpcio_server) as target, open_channel(target) as channel:
        port = int(target.rpartition(":")[2])
        async with request(channel, "Chat") as stream, trio.open_nursery() as nursery:
            await stream.send_request()
            await stream.send_message(Raw(b"one"))
            assert await stream.recv_message() == b"one"

            async def stop() -> None:
                await grpcio_server.ask("stop", port=port, grace=math.ceil(20))

            nursery.start_soon(stop)
            await until(trio.lowlevel.checkpoint, lambda _: channel.state.name != "READY")  # GOAWAY is here
            await stream.send_message(Raw(b"two"), end=True)
            assert await stream.recv_message() == b"two"
            assert await stream.recv_message() is None
            await stream.recv_trailing_metadata()
        assert await grpcio_server.ask("start", address=target) == port
