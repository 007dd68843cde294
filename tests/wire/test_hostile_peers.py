"""Peers that mean harm, or are broken: each costs its own connection at most, within the limits.

Every test attacks a server over a real socket while a well-behaved client keeps calling on another
connection, and ends with that client still being served and nothing of the attack left.
"""

from __future__ import annotations

import random

import pytest
import trio
from wire_attacker import Field, battlefield, request
from wire_frames import (
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from wire_service import Echo, serving

from meshnode.transport import KeepAlive, open_channel

# --- bytes that are not HTTP/2


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        bytes(1000),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX" + bytes(100),
        b"\xff" * 100_000,
    ],
)
async def test_what_is_not_http2_is_hung_up_on(data: bytes) -> None:
    async with battlefield() as field, field.attacker(greet=False) as attacker:
        await attacker.flood(data, 1)
        assert await attacker.goaway() in (None, PROTOCOL_ERROR)


@pytest.mark.parametrize("seed", range(20))
async def test_garbage_after_the_preface(seed: int) -> None:
    noise = random.Random(seed).randbytes(50_000)
    async with battlefield() as field, field.attacker() as attacker:
        await attacker.flood(noise, 1)
        with trio.move_on_after(0.5):  # random lengths may leave the server waiting for more
            await attacker.goaway()


@pytest.mark.parametrize("seed", range(20))
async def test_frames_with_random_contents(seed: int) -> None:
    dice = random.Random(seed)
    async with battlefield() as field, field.attacker() as attacker:
        for _ in range(200):
            kind, flags, stream = dice.randrange(12), dice.randrange(256), dice.randrange(8)
            await attacker.flood(frame(kind, flags, stream, dice.randbytes(dice.randrange(40))), 1)
        with trio.move_on_after(0.5):
            await attacker.goaway()


async def test_headers_that_cannot_be_decoded() -> None:
    async with battlefield() as field, field.attacker() as attacker:
        await attacker.send(frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"))
        assert await attacker.goaway() == COMPRESSION_ERROR


# --- floods


async def test_rapid_reset() -> None:
    """Streams opened and reset at once: handlers end, and the connection does not live long."""
    async with battlefield(resets_burst=200) as field, field.attacker() as attacker:
        for number in range(1, 2001, 2):
            await attacker.flood(request(number, "Hang") + frame(RST_STREAM, 0, number, b"\0\0\0\x08"), 1)
        assert await attacker.goaway() == ENHANCE_YOUR_CALM


async def test_resets_that_the_server_is_made_to_send() -> None:
    """The same with the resets provoked: each stream breaks a rule."""
    async with battlefield(resets_burst=200) as field, field.attacker() as attacker:
        for number in range(1, 2001, 2):
            await attacker.flood(request(number) + frame(WINDOW_UPDATE, 0, number, bytes(4)), 1)
        assert await attacker.goaway() == ENHANCE_YOUR_CALM


async def test_a_continuation_flood() -> None:
    async with battlefield() as field, field.attacker() as attacker:
        await attacker.send(frame(HEADERS, 0, 1, b"\x00\x01a\x01b"))
        await attacker.flood(frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b"), 5000)
        assert await attacker.goaway() == ENHANCE_YOUR_CALM


async def test_a_flood_of_empty_continuations() -> None:
    async with battlefield() as field, field.attacker() as attacker:
        await attacker.send(frame(HEADERS, 0, 1))
        await attacker.flood(frame(CONTINUATION, 0, 1), 5000)
        assert await attacker.goaway() == ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("PING", frame(PING, 0, 0, bytes(8))),
        ("SETTINGS", frame(SETTINGS, 0, 0)),
        ("SETTINGS that change windows", frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff")),
        ("PRIORITY", frame(PRIORITY, 0, 3, b"\0\0\0\0\x10")),
        ("unknown frames", frame(0xBE, 0, 0, b"x")),
        ("GOAWAY", frame(GOAWAY, 0, 0, bytes(8))),
    ],
)
async def test_floods_of_control_frames(name: str, data: bytes) -> None:
    async with (
        battlefield(pings_burst=50, settings_burst=50, odd_frames_burst=500) as field,
        field.attacker() as attacker,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(attacker.flood, data * 100, 1000)
        assert await attacker.goaway() == ENHANCE_YOUR_CALM, name
        nursery.cancel_scope.cancel()


async def test_control_frames_whose_answers_are_never_read() -> None:
    """The answers may not pile up in our memory."""
    async with battlefield(pings_burst=10**6, unsent_replies=1000) as field, field.attacker() as attacker:
        await attacker.flood(frame(PING, 0, 0, bytes(8)) * 1000, 1_000_000)  # ends when the server hangs up


async def test_empty_data_flood() -> None:
    async with battlefield(empty_data_burst=100) as field, field.attacker() as attacker:
        await attacker.send(request(1, "Collect"))
        await attacker.flood(frame(DATA, 0, 1), 3000)
        assert await attacker.goaway() == ENHANCE_YOUR_CALM


async def test_window_updates_without_end() -> None:
    """Credit by drops on a stream that is served: costs time, never memory, and overflows in the end."""
    async with battlefield() as field, field.attacker() as attacker:
        await attacker.send(request(1, "Hang"))
        await attacker.flood(frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01") * 100, 100)
        await field.witness()
        await attacker.send(frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"))
        assert await attacker.goaway() == FLOW_CONTROL_ERROR


# --- sizes


async def test_headers_larger_than_the_limit_cost_the_stream_only() -> None:
    async with battlefield(header_list_size=2000) as field, field.attacker() as attacker:
        await attacker.send(request(1, "Echo", ("x-large", "v" * 3000)))
        assert await attacker.reset(1) in (PROTOCOL_ERROR, ENHANCE_YOUR_CALM)
        await attacker.send(request(3), frame(DATA, END_STREAM, 3, b"\0\0\0\0\0"))
        assert (await attacker.reply(3))[1]["grpc-status"] == "0"


async def test_a_header_block_larger_than_the_limit() -> None:
    async with battlefield(header_block_size=20_000) as field, field.attacker() as attacker:
        await attacker.send(frame(HEADERS, 0, 1, bytes(16_000)))
        await attacker.flood(frame(CONTINUATION, 0, 1, bytes(16_000)), 2)
        assert await attacker.goaway() == ENHANCE_YOUR_CALM


async def test_a_hpack_bomb() -> None:
    """One large entry, named again and again by one byte."""
    bomb = b"\x40\x01a\x7f\x80\x1e" + b"v" * 3967 + b"\xbe" * 12_000
    async with battlefield() as field, field.attacker() as attacker:
        await attacker.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, bomb))
        assert await attacker.reset(1) in (PROTOCOL_ERROR, ENHANCE_YOUR_CALM)


async def test_frames_larger_than_announced() -> None:
    async with battlefield() as field, field.attacker() as attacker:
        await attacker.send(request(1), frame(DATA, 0, 1, bytes(16_385)))
        assert await attacker.goaway() == 6  # FRAME_SIZE_ERROR


async def test_more_data_than_the_window_allows() -> None:
    async with (
        battlefield(stream_window=65_535, connection_window=65_535) as field,
        field.attacker() as attacker,
    ):
        await attacker.send(request(1, "Hang"))
        await attacker.flood(frame(DATA, 0, 1, b"\0\0\0\x3f\xf0" + bytes(16_368)), 10)
        assert await attacker.goaway() == FLOW_CONTROL_ERROR


async def test_streams_beyond_the_limit_are_refused() -> None:
    async with battlefield(concurrent_streams=5) as field, field.attacker() as attacker:
        for number in range(1, 12, 2):
            await attacker.send(request(number, "Hang"))
        assert await attacker.reset(11) == REFUSED_STREAM


@pytest.mark.parametrize("claim", [b"\0\xff\xff\xff\xff", b"\0\x00\x40\x00\x01"])
async def test_a_message_that_claims_to_be_huge(claim: bytes) -> None:
    async with battlefield() as field, field.attacker() as attacker:
        await attacker.send(request(1), frame(DATA, 0, 1, claim))
        assert (await attacker.reply(1))[1]["grpc-status"] == "8"


# --- slowness


async def test_no_preface_at_all() -> None:
    async with battlefield(handshake_seconds=0.2) as field, field.attacker(greet=False) as attacker:
        await attacker.goaway()


@pytest.mark.parametrize("head", [PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS, 0, 0)[:5]])
async def test_a_preface_that_does_not_end(head: bytes) -> None:
    async with battlefield(handshake_seconds=0.2) as field, field.attacker(greet=False) as attacker:
        await attacker.send(head)
        await attacker.goaway()


@pytest.mark.parametrize(
    "head", [request(1)[:20], frame(HEADERS, 0, 1, b"\x82"), request(1) + frame(DATA, 0, 1, bytes(100))[:50]]
)
async def test_headers_and_frames_that_do_not_end(head: bytes) -> None:
    async with battlefield(header_seconds=0.2) as field, field.attacker() as attacker:
        await attacker.send(head)
        await attacker.goaway()


async def test_a_request_dripping_in_byte_by_byte_is_served() -> None:
    async with battlefield() as field, field.attacker() as attacker:
        for byte in request(1) + frame(DATA, END_STREAM, 1, b"\0\0\0\0\x02hi"):
            await attacker.send(bytes((byte,)))
        assert (await attacker.reply(1))[0] == b"\0\0\0\0\x02hi"


async def test_a_peer_that_never_reads_its_replies() -> None:
    """It asks for 64 MiB with every window open: what we hold of them is bounded, others are served."""
    async with battlefield() as field, field.attacker() as attacker:
        open_windows = frame(SETTINGS, 0, 0, b"\0\x04\x7f\xff\xff\xff") + frame(
            WINDOW_UPDATE, 0, 0, b"\x7f\xff\0\0"
        )
        await attacker.send(open_windows, request(1, "Spread", ("x-size", str(1 << 20))))
        await attacker.send(frame(DATA, END_STREAM, 1, b"\0\0\0\0\x0264"))
        for _ in range(50):
            await field.witness()
        assert field.server.in_flight == 1  # its handler waits for room, and for nothing else


async def test_a_peer_with_closed_windows() -> None:
    """It asks for data and gives no credit: the handlers wait, others are served."""
    async with battlefield() as field, field.attacker() as attacker:
        await attacker.send(frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\0"))
        for number in range(1, 100, 2):
            await attacker.send(request(number), frame(DATA, END_STREAM, number, b"\0\0\0\0\x02hi"))
        while field.server.in_flight < 50:
            await field.witness()
        await field.witness()


async def test_half_open_connections() -> None:
    """The peer says it will send no more and goes on reading: the connection ends."""
    async with battlefield() as field, field.attacker() as attacker:
        await attacker.send(request(1, "Hang"))
        await attacker.stream.send_eof()
        await attacker.goaway()


async def test_a_connection_cut_in_the_middle_of_everything() -> None:
    echo = Echo()
    async with battlefield(service=echo) as field:
        for _ in range(20):
            async with field.attacker() as attacker:
                await attacker.send(request(1, "Hang"), request(3, "Hang"), request(5)[:15])
        await field.alone()
    assert echo.stats["hanging"] == echo.stats["ended"]


async def test_many_connections_that_do_nothing() -> None:
    async with battlefield(handshake_seconds=0.5) as field, trio.open_nursery() as nursery:

        async def idle() -> None:
            async with field.attacker(greet=False) as attacker:
                await attacker.goaway()

        for _ in range(200):
            nursery.start_soon(idle)
        for _ in range(20):
            await field.witness()


async def test_a_client_that_is_gone_without_a_word_is_noticed_by_keepalive() -> None:
    """Its call hangs and it answers no PING: the connection ends, and the handler with it."""
    echo = Echo()
    keepalive = KeepAlive(interval=0.1, patience=0.1)
    async with battlefield(service=echo, keepalive=keepalive) as field, field.attacker() as attacker:
        await attacker.send(request(1, "Hang"))
        await echo.hanging.wait()
        with trio.fail_after(10):
            await echo.ended.wait()


# --- draining


@pytest.mark.parametrize("greet", [True, False])
async def test_draining_does_not_wait_for_a_peer_that_says_nothing(greet: bool) -> None:
    """It never answers the PING that would tell that it has read our GOAWAY."""
    async with serving(Echo()) as (target, server), open_channel(target) as channel:
        field = Field(target, server, channel)
        async with field.attacker(greet=greet):
            while server.connections < 2:
                await field.witness()
            with trio.fail_after(10):
                await server.drain()
        assert server.in_flight == 0


async def test_requests_that_were_on_their_way_when_draining_began_are_served() -> None:
    async with serving(Echo()) as (target, server), open_channel(target) as channel:
        field = Field(target, server, channel)
        async with field.attacker() as attacker, trio.open_nursery() as nursery:
            await attacker.send(request(1, "Chat"))
            while not server.in_flight:
                await field.witness()
            nursery.start_soon(server.drain)
            said: list[tuple[int, int, int, bytes]] = []
            while not said or said[-1][0] != PING:
                said.append(await attacker.frame() or (-1, 0, 0, b""))
            assert [last[3][:4] for last in said if last[0] == GOAWAY] == [b"\x7f\xff\xff\xff"]
            await attacker.send(request(3), frame(DATA, END_STREAM, 3, b"\0\0\0\0\x04late"))
            await attacker.send(frame(PING, 1, 0, said[-1][3]))
            assert (await attacker.reply(3, away=True))[0] == b"\0\0\0\0\x04late"
            await attacker.send(request(5), frame(DATA, END_STREAM, 1, b"\0\0\0\0\x03end"))
            assert (await attacker.reply(1, away=True))[0] == b"\0\0\0\0\x03end"
            assert await attacker.frame() is None  # no word about the request that came too late
