"""The one HTTP answer of `meshnode run`."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from meshnode.cli._healthz import DAPR_SERVICE, answer, serve_connection


@pytest.fixture
def asked() -> list[str]:
    return []


def healthy(asked: list[str], result: bool = True):  # type: ignore[no-untyped-def]
    async def check(service: str) -> bool:
        asked.append(service)
        return result

    return check


@pytest.mark.parametrize(
    ("line", "status", "service"),
    [
        ("GET /v1.0/healthz/outbound HTTP/1.1", 204, [DAPR_SERVICE]),
        ("GET /v1.0/healthz HTTP/1.1", 204, [""]),
        ("GET /v1.0/healthz/outbound?appid=x HTTP/1.0", 204, [DAPR_SERVICE]),
        ("HEAD /v1.0/healthz/ HTTP/1.1", 204, [""]),
        ("POST /v1.0/healthz HTTP/1.1", 405, []),
        ("GET /v1.0/metadata HTTP/1.1", 404, []),
        ("GET / HTTP/1.1", 404, []),
        ("PRI * HTTP/2.0", 400, []),
        ("hello", 400, []),
    ],
)
async def test_answers(line: str, status: int, service: list[str], asked: list[str]) -> None:
    reply = await answer(f"{line}\r\nhost: x\r\n\r\n".encode(), healthy(asked))
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())
    assert reply.endswith(b"\r\n\r\n") == (status == 204)
    assert asked == service


async def test_a_node_that_is_not_ready(asked: list[str]) -> None:
    reply = await answer(b"GET /v1.0/healthz/outbound HTTP/1.1\r\n\r\n", healthy(asked, result=False))
    assert reply.startswith(b"HTTP/1.1 500 ")
    head, body = reply.split(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head
    assert b"ERR_HEALTH_NOT_READY" in body


async def test_a_node_that_does_not_answer_is_not_ready(autojump_clock: MockClock) -> None:
    async def never(service: str) -> bool:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    with trio.fail_after(6):
        reply = await answer(b"GET /v1.0/healthz HTTP/1.1\r\n\r\n", never)
    assert reply.startswith(b"HTTP/1.1 500 ")


async def test_a_request_in_pieces_is_answered_and_the_connection_closed(asked: list[str]) -> None:
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, server, healthy(asked))
        for piece in (b"GET /v1.0/hea", b"lthz HTTP/1.1\r\nhost: x\r\n", b"\r\n"):
            await client.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        reply = b""
        while chunk := await client.receive_some():
            reply += chunk
    assert reply.startswith(b"HTTP/1.1 204 No Content\r\n")


@pytest.mark.parametrize("sent", [b"", b"GET /v1.0/healthz", b"x" * 9000])
async def test_what_one_connection_may_cost_is_bounded(
    sent: bytes, asked: list[str], autojump_clock: MockClock
) -> None:
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, server, healthy(asked))
        await client.send_all(sent)
        with trio.fail_after(6):
            assert await client.receive_some() == b""
    assert asked == []


@given(st.binary(max_size=200))
def test_anything_gets_some_answer(head: bytes) -> None:
    async def check(service: str) -> bool:
        return True

    assert trio.run(answer, head, check).startswith(b"HTTP/1.1 ")
