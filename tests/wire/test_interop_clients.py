"""Other implementations' clients against our server, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import pytest
import trio
from wire_peers import Peer
from wire_service import Echo, serving

from meshnode.transport import KeepAlive

CLIENTS = ["client_grpcio.py", "client_grpcio_aio.py", "client_grpclib.py"]
GRPCIO = CLIENTS[:2]
MIB = 1024 * 1024


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, peer: Callable[[str], Peer]) -> Peer:
    return peer(request.param)


@pytest.fixture(params=GRPCIO)
def grpcio_client(request: pytest.FixtureRequest, peer: Callable[[str], Peer]) -> Peer:
    return peer(request.param)


@final
class Remote:
    """A channel of a peer process."""

    def __init__(self, client: Peer, number: int) -> None:
        self._client = client
        self._number = number

    async def __call__(self, method: str, *messages: bytes, do: str = "call", **rest: Any) -> Any:
        arguments = {"messages": list(messages)} if messages else {}
        return await self._client.ask(do, channel=self._number, method=method, **arguments, **rest)


@asynccontextmanager
async def connected(client: Peer, target: str, **options: Any) -> AsyncIterator[Remote]:
    number = await client.ask("open", target=target, **options)
    try:
        yield Remote(client, number)
    finally:
        with trio.CancelScope(shield=True):
            await client.ask("close", channel=number)


def plain(pairs: list[list[Any]]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in pairs if key.startswith("x-")]


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
async def test_every_shape(client: Peer, method: str, messages: list[bytes], replies: list[bytes]) -> None:
    async with serving(Echo()) as (target, _), connected(client, target) as call:
        result = await call(method, *messages)
    assert (result["code"], result["replies"]) == (0, replies)


@pytest.mark.parametrize("method", ["Echo", "Collect", "Spread", "Chat"])
async def test_metadata_both_ways(client: Peer, method: str) -> None:
    metadata = [
        ("x-initial-text", "plain text, with % and ~"),
        ("x-initial-bin", bytes(range(256))),
        ("x-initial-twice", "one"),
        ("x-initial-twice", "two"),
        ("x-trailing-text", "later"),
        ("x-trailing-bin", b""),
        ("x-trailing-bin", b"\xff"),
    ]
    async with serving(Echo()) as (target, _), connected(client, target) as call:
        result = await call(method, b"1", metadata=metadata)
    assert result["code"] == 0
    assert plain(result["initial"]) == metadata[:4]
    assert plain(result["trailing"]) == metadata[4:]


@pytest.mark.parametrize("method", ["Echo", "Collect", "Spread", "Chat"])
@pytest.mark.parametrize("trailing", [False, True])
async def test_statuses_messages_and_details(client: Peer, method: str, trailing: bool) -> None:
    message = "no café: 5% ☃\n\ttabs"
    metadata: list[tuple[str, Any]] = [
        ("x-fail", "9"),
        ("x-message-bin", message.encode()),
        ("x-details-bin", b"\x08\x09\x12\x01x"),
    ]
    if trailing:
        metadata.append(("x-trailing-why", "because"))
    async with serving(Echo()) as (target, _), connected(client, target) as call:
        result = await call(method, b"2", metadata=metadata)
    assert (result["code"], result["message"]) == (9, message)
    sent = dict(result["trailing"])
    assert result.get("details", sent.get("grpc-status-details-bin")) == b"\x08\x09\x12\x01x"
    assert sent.get("x-trailing-why") == ("because" if trailing else None)
    assert result["replies"] == ([b"0", b"1"] if method == "Spread" else [b"2"] if method == "Chat" else [])


@pytest.mark.parametrize("code", range(1, 17))
async def test_every_status_code(peer: Callable[[str], Peer], code: int) -> None:
    async with serving(Echo()) as (target, _), connected(peer(CLIENTS[0]), target) as call:
        result = await call("Echo", metadata=[("x-fail", str(code))])
    assert result["code"] == code


async def test_two_hundred_calls_at_once(client: Peer) -> None:
    async with serving(Echo()) as (target, server), connected(client, target) as call:
        results = await call("Echo", b"x" * 1000, do="calls", times=200)
        assert server.in_flight == 0
    assert [(result["code"], result["replies"]) for result in results] == [(0, [b"x" * 1000])] * 200


@pytest.mark.parametrize("method", ["Echo", "Collect", "Chat"])
async def test_a_mebibyte(client: Peer, method: str) -> None:
    message = bytes(range(256)) * (MIB // 256)
    async with serving(Echo()) as (target, _), connected(client, target) as call:
        result = await call(method, message)
    assert result["code"] == 0
    assert result["replies"] == [message]


async def test_many_large_messages_in_both_directions(client: Peer) -> None:
    message = b"m" * (300 * 1024)
    async with serving(Echo()) as (target, _), connected(client, target) as call:
        result = await call("Chat", *[message] * 12)
        spread = await call("Spread", b"12", metadata=[("x-size", str(300 * 1024))])
    assert result["replies"] == [message] * 12
    assert [len(reply) for reply in spread["replies"]] == [300 * 1024 + len(str(n)) for n in range(12)]


async def test_large_messages_at_once_share_the_connection(client: Peer) -> None:
    message = b"m" * MIB
    async with serving(Echo()) as (target, _), connected(client, target) as call:
        results = await call("Echo", message, do="calls", times=8)
    assert all(result["replies"] == [message] for result in results)


async def test_a_message_over_the_limit(client: Peer) -> None:
    async with serving(Echo()) as (target, _), connected(client, target) as call:
        for method in ("Echo", "Collect", "Chat"):
            result = await call(method, b"x" * (4 * MIB + 1))
            assert result["code"] == 8, method
            assert "received message larger than max (4194305 vs. 4194304)" in result["message"]
        assert (await call("Echo", b"still there"))["replies"] == [b"still there"]


async def test_an_unknown_method(client: Peer) -> None:
    async with serving(Echo()) as (target, _), connected(client, target) as call:
        result = await call("Missing", b"x")
    assert (result["code"], result["message"]) == (12, "unknown method Missing for service wire.Test")


async def test_a_cancelled_call_ends_its_handler(client: Peer) -> None:
    echo = Echo()
    async with serving(echo) as (target, server), connected(client, target) as call:
        assert await call("Hang", do="cancel") == 1
        await echo.ended.wait()
        assert (await call("Echo", b"next"))["replies"] == [b"next"]
        assert server.in_flight == 0
    assert echo.stats == {"hanging": 1, "ended": 1}


async def test_a_deadline_ends_both_sides(client: Peer) -> None:
    echo = Echo()
    async with serving(echo) as (target, _), connected(client, target) as call:
        await call("Echo", b"connect")
        result = await call("Hang", timeout=0.5)
        assert result["code"] == 4
        await echo.ended.wait()
        assert (await call("Echo", b"next"))["replies"] == [b"next"]


async def test_cancellations_and_answers_race(client: Peer) -> None:
    """Deadlines about as long as a call: whichever side wins, handlers end and the connection lives."""
    echo = Echo()
    async with serving(echo) as (target, server), connected(client, target) as call:
        for timeout in (0.001, 0.003, 0.006, 0.01, 0.02):
            results = await call("Chat", *[b"x" * 2000] * 20, do="calls", times=20, timeout=timeout)
            # The second is what grpcio's asyncio client makes of writing after its own deadline.
            ends = {result["code"] for result in results if result["message"] != "Internal error from Core"}
            assert ends <= {0, 4}
        assert (await call("Echo", b"next"))["replies"] == [b"next"]
        assert server.in_flight == 0


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
@pytest.mark.parametrize("method", ["Echo", "Collect", "Spread", "Chat"])
async def test_compression_both_ways(grpcio_client: Peer, compression: str, method: str) -> None:
    text = b"1" if method == "Spread" else b"compressible " * 1000
    async with (
        serving(Echo(compression)) as (target, _),
        connected(grpcio_client, target, compression=compression) as call,
    ):
        result = await call(method, text, metadata=[("x-size", "5000")])
    assert result["code"] == 0
    assert result["replies"] == ([b"0" + b"." * 5000] if method == "Spread" else [text])


async def test_a_compressed_message_may_not_grow_over_the_limit(grpcio_client: Peer) -> None:
    async with (
        serving(Echo()) as (target, _),
        connected(grpcio_client, target, compression="gzip") as call,
    ):
        result = await call("Echo", bytes(4 * MIB + 1))
    assert result["code"] == 8
    assert "larger than max" in result["message"]


async def test_a_unix_socket(client: Peer, tmp_path: Path) -> None:
    async with (
        serving(Echo(), address=f"unix:{tmp_path}/socket") as (target, _),
        connected(client, target) as call,
    ):
        assert target == f"unix:{tmp_path}/socket"
        assert (await call("Echo", b"local"))["replies"] == [b"local"]


async def test_draining_finishes_calls_and_takes_no_more(grpcio_client: Peer) -> None:
    # Not with grpclib: at GOAWAY it closes the connection with all its calls.
    echo = Echo()
    async with serving(echo) as (target, server), connected(grpcio_client, target) as call:
        await call("Echo", b"connect")
        async with trio.open_nursery() as nursery:
            results: list[Any] = []

            async def slow() -> None:
                results.append(await call("Hang", timeout=1.5))

            nursery.start_soon(slow)
            await echo.hanging.wait()
            await server.drain()
            assert echo.ended.is_set()
        assert results[0]["code"] == 4
        assert (await call("Echo", b"too late", timeout=5))["code"] == 14


async def test_keepalive_both_ways(grpcio_client: Peer) -> None:
    """Both sides send PINGs all the time while a call says nothing: it ends by its deadline, not by them."""
    echo = Echo()
    pings = {
        "grpc.keepalive_time_ms": 100,
        "grpc.keepalive_timeout_ms": 5000,
        "grpc.http2.max_pings_without_data": 0,
    }
    async with (
        serving(echo, keepalive=KeepAlive(interval=0.05, patience=0.2)) as (target, server),
        connected(grpcio_client, target, options=pings) as call,
    ):
        result = await call("Hang", timeout=1.5)
        assert result["code"] == 4
        assert server.connections == 1
        assert (await call("Echo", b"same connection"))["code"] == 0
