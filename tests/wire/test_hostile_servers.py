"""Servers that mean harm, or are broken, against our channel: calls end with a status, the channel survives.

Every test plays a server over a real socket, frame by frame; the channel then calls a good one on the same
address or goes on with the connection, whichever is right.
"""

from __future__ import annotations

import random
import struct

import pytest
import trio
from wire_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from wire_impostor import CALL, EMPTY, OK, RESPONSE, Impostor, answer, block, fails, good, impostors, succeeds

from meshnode.transport import Backoff, GRPCError, KeepAlive, Limits, Status
from meshnode.transport.rules import result_of

# --- before the connection is one


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        bytes(1000),
        frame(PING, 0, 0, bytes(8)),
        frame(SETTINGS, 0, 0, b"\0\x05\0\0\0\0"),
        frame(GOAWAY, 0, 0, bytes(8)),
    ],
)
async def test_a_greeting_that_is_none(greeting: bytes) -> None:
    async def script(server: Impostor) -> None:
        await server.send(greeting)

    async with impostors(script, good) as channel:
        error = await fails(channel)
        assert error.status is Status.UNAVAILABLE
        assert error.sent is False  # type: ignore[attr-defined]
        await succeeds(channel)


async def test_a_server_that_says_nothing() -> None:
    async def script(server: Impostor) -> None:
        await server.until_gone()

    impatient = Backoff(initial=0.01, maximum=0.02, connect=0.2)
    async with impostors(script, good, backoff=impatient) as channel:
        error = await fails(channel)
        assert error.status is Status.UNAVAILABLE
        await succeeds(channel)


# --- what costs the connection


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"), 9),
        (frame(HEADERS, END_HEADERS, 1, b"\xbe"), 9),
        (frame(HEADERS, END_HEADERS, 0, RESPONSE), 1),
        (frame(HEADERS, END_HEADERS, 2, RESPONSE), 1),
        (frame(HEADERS, END_HEADERS, 99, RESPONSE), 1),
        (frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + RESPONSE), 1),
        (frame(SETTINGS, 0, 1), 1),
        (frame(SETTINGS, 0, 0, b"x"), 6),
        (frame(SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff"), 3),
        (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), 3),
        (frame(WINDOW_UPDATE, 0, 0, bytes(4)), 1),
        (frame(PING, 0, 0, b"short"), 6),
        (frame(DATA, 0, 0, b"x"), 1),
        (frame(DATA, 0, 1, bytes(20_000)), 6),
        (frame(CONTINUATION, END_HEADERS, 1, RESPONSE), 1),
        (frame(HEADERS, 0, 1, RESPONSE) + frame(DATA, 0, 1, b""), 1),
        (frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 100, 11),
        (frame(SETTINGS, 0, 0) * 1000, 11),
        (frame(PRIORITY, 0, 1, bytes(5)) * 20_000, 11),
    ],
)
async def test_a_broken_rule_of_the_connection(said: bytes, code: int) -> None:
    codes: list[int | None] = []

    async def script(server: Impostor) -> None:
        await server.greet()
        await server.request()
        try:
            await server.send(said)
        except trio.BrokenResourceError:
            pass
        codes.append(await server.until_gone())

    async with impostors(script, good) as channel:
        error = await fails(channel)
        assert error.status is Status.UNAVAILABLE
        assert error.sent is True  # type: ignore[attr-defined]
        await succeeds(channel)
    assert codes == [code]


@pytest.mark.parametrize("seed", range(20))
async def test_garbage_instead_of_an_answer(seed: int) -> None:
    noise = random.Random(seed).randbytes(5000)

    async def script(server: Impostor) -> None:
        await server.greet()
        await server.request()
        await server.send(noise)

    async with impostors(script, good) as channel:
        assert (await fails(channel)).status in (Status.UNAVAILABLE, Status.INTERNAL)
        await succeeds(channel)


@pytest.mark.parametrize("seed", range(20))
async def test_frames_with_random_contents(seed: int) -> None:
    dice = random.Random(seed)
    said = b"".join(
        frame(dice.randrange(12), dice.randrange(256), dice.randrange(4), dice.randbytes(dice.randrange(40)))
        for _ in range(100)
    )

    async def script(server: Impostor) -> None:
        await server.greet()
        await server.request()
        await server.send(said)

    async with impostors(script, good) as channel:
        await fails(channel)
        await succeeds(channel)


async def test_a_connection_cut_in_the_middle_of_an_answer() -> None:
    async def script(server: Impostor) -> None:
        await server.greet()
        await server.send(answer(await server.request())[:-3])

    async with impostors(script, good) as channel:
        error = await fails(channel)
        assert (error.status, error.sent) == (Status.UNAVAILABLE, True)  # type: ignore[attr-defined]
        await succeeds(channel)


# --- what costs the call only


def pairs(*items: tuple[str, str]) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, block(*items))


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (pairs((":status", "200"), ("content-type", "application/grpc")), Status.UNKNOWN),
        (pairs((":status", "503"), ("content-type", "text/html")), Status.UNAVAILABLE),
        (pairs((":status", "401")), Status.UNAUTHENTICATED),
        (pairs((":status", "404")), Status.UNIMPLEMENTED),
        (frame(HEADERS, END_HEADERS, 1, RESPONSE) + frame(DATA, END_STREAM, 1, EMPTY), Status.INTERNAL),
        (frame(DATA, 0, 1, EMPTY), Status.INTERNAL),
        (frame(HEADERS, END_HEADERS, 1, block(("content-type", "application/grpc"))), Status.INTERNAL),
        (frame(HEADERS, END_HEADERS, 1, block((":status", "200"), ("Upper", "x"))), Status.INTERNAL),
        (frame(HEADERS, END_HEADERS, 1, block((":status", "200"), ("connection", "x"))), Status.INTERNAL),
        (frame(HEADERS, END_HEADERS, 1, RESPONSE) + pairs((":status", "200")), Status.INTERNAL),
        (frame(HEADERS, END_HEADERS, 1, RESPONSE) + frame(DATA, 0, 1, b"\x07\0\0\0\0"), Status.INTERNAL),
        (
            frame(HEADERS, END_HEADERS, 1, RESPONSE)
            + frame(DATA, 0, 1, b"\0\0\0")
            + frame(HEADERS, END_HEADERS | END_STREAM, 1, OK),
            Status.INTERNAL,
        ),
        (
            frame(HEADERS, END_HEADERS, 1, RESPONSE) + frame(DATA, 0, 1, b"\0\xff\xff\xff\xff"),
            Status.RESOURCE_EXHAUSTED,
        ),
        (
            frame(HEADERS, END_HEADERS, 1, RESPONSE)
            + frame(DATA, 0, 1, EMPTY * 2)
            + frame(HEADERS, END_HEADERS | END_STREAM, 1, OK),
            Status.INTERNAL,
        ),
        (frame(WINDOW_UPDATE, 0, 1, bytes(4)), Status.INTERNAL),
        (frame(RST_STREAM, 0, 1, b"\0\0\0\x02"), Status.INTERNAL),
        (frame(RST_STREAM, 0, 1, b"\0\0\0\x08"), Status.CANCELLED),
        (frame(RST_STREAM, 0, 1, b"\0\0\0\x0b"), Status.RESOURCE_EXHAUSTED),
        (frame(RST_STREAM, 0, 1, b"\xff\xff\xff\xff"), Status.UNKNOWN),
    ],
)
async def test_a_broken_answer(said: bytes, status: Status) -> None:
    """The connection goes on: the next call is on it."""

    async def script(server: Impostor) -> None:
        await server.greet()
        assert await server.request() == 1
        await server.send(said)
        stream = await server.request()
        assert stream == 3
        await server.send(answer(stream))
        await server.until_gone()

    async with impostors(script) as channel:
        try:
            response = await channel.unary_raw(CALL, EMPTY)
        except GRPCError as error:
            assert error.status is status  # noqa: PT017
        else:
            ended = result_of(response.trailers)
            assert ended is not None
            assert ended.status is status
        await succeeds(channel)


async def test_headers_larger_than_our_limit() -> None:
    async def script(server: Impostor) -> None:
        await server.greet()
        await server.request()
        large = block((":status", "200"), ("x-large", "v" * 3000))
        await server.send(frame(HEADERS, END_HEADERS, 1, large))
        await server.send(answer(await server.request()))
        await server.until_gone()

    async with impostors(script, limits=Limits(header_list_size=2000)) as channel:
        assert (await fails(channel)).status in (Status.INTERNAL, Status.RESOURCE_EXHAUSTED)
        await succeeds(channel)


async def test_more_data_than_the_window_allows() -> None:
    async def script(server: Impostor) -> None:
        await server.greet()
        await server.request()
        await server.send(frame(HEADERS, END_HEADERS, 1, RESPONSE))
        try:
            for _ in range(2000):
                await server.send(frame(DATA, 0, 1, b"\0\0\0\x3f\xf0" + bytes(16_368)))
        except trio.BrokenResourceError:
            pass

    async with impostors(script, good) as channel:
        async with channel.open_raw(CALL) as call:
            await call.send_frame(EMPTY, end=True)
            await call.headers()
            with trio.fail_after(10), pytest.raises(GRPCError):
                while True:
                    await trio.sleep(0.05)  # reads slower than is sent
                    await call.receive_frame()
        await succeeds(channel)


# --- going away


async def test_goaway_that_lets_calls_end() -> None:
    """The call in flight is answered on the old connection, the next one goes to a new one."""

    async def script(server: Impostor) -> None:
        await server.greet()
        stream = await server.request()
        await server.send(frame(GOAWAY, 0, 0, struct.pack(">LL", 1, 0)))
        await server.send(answer(stream, b"\0\0\0\0\x03old"))
        assert await server.until_gone() in (None, 0)

    async with impostors(script, good) as channel:
        response = await channel.unary_raw(CALL, EMPTY)
        assert response.frame == b"\0\0\0\0\x03old"
        await succeeds(channel)


async def test_goaway_below_a_call_repeats_it_elsewhere() -> None:
    async def script(server: Impostor) -> None:
        await server.greet()
        await server.request()
        await server.send(frame(GOAWAY, 0, 0, struct.pack(">LL", 0, 0)))
        await server.until_gone()

    async with impostors(script, good) as channel:
        with trio.fail_after(10):
            response = await channel.unary_raw(CALL, EMPTY)
        assert response.trailers.get(b"grpc-status") == b"0"


async def test_a_server_that_refuses_everything_is_not_asked_for_ever() -> None:
    asked: list[int] = []

    async def script(server: Impostor) -> None:
        await server.greet()
        while True:
            stream = await server.request()
            asked.append(stream)
            await server.send(frame(RST_STREAM, 0, stream, b"\0\0\0\x07"))

    async with impostors(script) as channel:
        assert (await fails(channel)).status is Status.UNAVAILABLE
    assert 1 < len(asked) < 10


async def test_no_streams_allowed_for_now() -> None:
    """MAX_CONCURRENT_STREAMS of 0: calls wait, and go on when the server allows them again."""

    async def script(server: Impostor) -> None:
        await server.greet(b"\0\x03\0\0\0\0")
        await server.send(frame(PING, 0, 0, bytes(8)))
        await server.frame()
        await server.send(frame(SETTINGS, 0, 0, b"\0\x03\0\0\0\x01"))
        while True:
            await server.send(answer(await server.request()))

    async with impostors(script) as channel, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(succeeds, channel)


# --- silence


async def test_a_server_that_stops_answering_is_noticed_by_keepalive() -> None:
    async def script(server: Impostor) -> None:
        await server.greet()
        await server.request()
        await server.until_gone()  # reads, but says nothing any more, not even to PINGs

    keepalive = KeepAlive(interval=0.1, patience=0.1)
    async with impostors(script, good, keepalive=keepalive) as channel:
        error = await fails(channel)
        assert error.status is Status.UNAVAILABLE
        assert "keepalive" in (error.message or "")
        await succeeds(channel)


async def test_keepalive_is_answered() -> None:
    """A slow answer is no dead server: PINGs come back, so the call is waited for."""

    async def script(server: Impostor) -> None:
        await server.greet()
        stream, pings = await server.request(), 0
        while pings < 2:
            _, payload = await server.until(PING)
            await server.send(frame(PING, ACK, 0, payload))
            pings += 1
        await server.send(answer(stream))
        await server.until_gone()

    async with impostors(script, keepalive=KeepAlive(interval=0.05, patience=0.5)) as channel:
        await succeeds(channel)


async def test_a_server_that_never_reads() -> None:
    """Our sending waits for room; a deadline of the caller's still ends it."""

    async def script(server: Impostor) -> None:
        await server.greet(b"\0\x04\x7f\xff\xff\xff")
        await server.send(frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\0\0"))
        await trio.sleep_forever()

    async with impostors(script) as channel:
        await channel.wait_ready()
        with trio.move_on_after(1) as scope:
            async with channel.open_raw(CALL) as call:
                while True:
                    await call.send_frame(b"\0\0\x10\0\0" + bytes(1 << 20))
        assert scope.cancelled_caught
