"""TLS in both roles, with other implementations at the other end."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trio
from test_interop_clients import CLIENTS
from test_interop_clients import connected as client_of
from test_interop_servers import SERVERS, call, started
from wire_certificates import Certificates
from wire_peers import Peer
from wire_service import Echo, serving

from meshnode.transport import GRPCError, Status, open_channel

MIB = 1024 * 1024


@pytest.mark.parametrize("program", CLIENTS)
async def test_clients_of_others(
    program: str, peer: Callable[[str], Peer], certificates: Certificates
) -> None:
    running = serving(Echo(), ssl=certificates.server_context())
    async with running as (target, _), client_of(peer(program), target, ca=certificates.ca) as remote:
        assert (await remote("Echo", b"secret"))["replies"] == [b"secret"]
        assert (await remote("Chat", b"a" * MIB, b"b"))["replies"] == [b"a" * MIB, b"b"]
        results = await remote("Echo", b"x" * 1000, do="calls", times=100)
        assert [result["replies"] for result in results] == [[b"x" * 1000]] * 100
        assert await remote("Hang", do="cancel") == 1


@pytest.mark.parametrize("program", SERVERS)
async def test_servers_of_others(
    program: str, peer: Callable[[str], Peer], certificates: Certificates
) -> None:
    given = {
        "key": certificates.key,
        "chain": certificates.chain,
        "key_file": certificates.key_file,
        "chain_file": certificates.chain_file,
    }
    async with (
        started(peer(program), **given) as target,
        open_channel(target, ssl=certificates.client_context()) as channel,
    ):
        assert (await call(channel, "Echo", b"secret")).replies == [b"secret"]
        assert (await call(channel, "Chat", b"a" * MIB, b"b")).replies == [b"a" * MIB, b"b"]

        async def one() -> None:
            assert (await call(channel, "Echo", b"x" * 1000)).replies == [b"x" * 1000]

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)


async def test_both_certificates_are_checked(certificates: Certificates) -> None:
    """Mutual TLS between ours: the server knows who calls."""
    context = certificates.server_context()
    context.load_verify_locations(cadata=certificates.ca.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    client = certificates.client_context()
    client.load_cert_chain(certificates.chain_file, certificates.key_file)
    seen: list[Any] = []
    echo = Echo(on_call=lambda stream: seen.append(stream.peer.certificate))
    async with serving(echo, ssl=context) as (target, _), open_channel(target, ssl=client) as channel:
        assert (await call(channel, "Echo", b"hello")).replies == [b"hello"]
    assert seen[0]["subjectAltName"]


async def refused(target: str, context: ssl.SSLContext | None) -> GRPCError:
    async with open_channel(target, ssl=context) as channel:
        with trio.fail_after(10), pytest.raises(GRPCError) as error:
            await channel.unary_raw([(b":method", b"POST")], b"\0\0\0\0\0")
        assert error.value.status is Status.UNAVAILABLE
        return error.value


async def test_a_server_that_nobody_vouches_for(certificates: Certificates) -> None:
    stranger = ssl.create_default_context()
    async with serving(Echo(), ssl=certificates.server_context()) as (target, _):
        error = await refused(target, stranger)
        assert "certificate verify failed" in (error.message or "")
        async with open_channel(target, ssl=certificates.client_context()) as channel:
            assert (await call(channel, "Echo", b"hello")).replies == [b"hello"]


async def test_a_client_without_its_certificate(certificates: Certificates) -> None:
    context = certificates.server_context()
    context.load_verify_locations(cadata=certificates.ca.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    async with serving(Echo(), ssl=context) as (target, _):
        await refused(target, certificates.client_context())


async def test_plain_text_where_tls_is_spoken_and_the_other_way_round(certificates: Certificates) -> None:
    async with serving(Echo(), ssl=certificates.server_context()) as (target, _):
        await refused(target, None)
    async with serving(Echo()) as (target, _):
        await refused(target, certificates.client_context())
