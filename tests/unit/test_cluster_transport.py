"""The pool of peers with the real channel and server, joined by links that are cut and healed, on the virtual
clock.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from meshnode.cluster import Directory, PeerLimits, Peers, open_peers
from meshnode.interfaces import Instance
from meshnode.testing.links import ANY, Network
from meshnode.transport import ConnectionLost, GRPCError, RawCall, Server

EMPTY = b"\0\0\0\0\0"
REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/test.Service/Method"),
    (b":authority", b"test"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]
ADDRESSES = ("a:1", "b:1")


@define
class Mesh:
    """Two instances of an app id, and the peers through which they are called from "me"."""

    network: Network = field(factory=lambda: Network(random.Random(1)))
    served: Counter[str] = field(factory=Counter)
    addresses: list[str] = field(factory=lambda: list(ADDRESSES))
    peers: Peers = field(init=False)
    max_age: float = 2.0

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        yield

    async def resolve(self, app_id: str, namespace: str) -> list[str]:
        return list(self.addresses)

    async def serve(self, address: str, call: RawCall) -> None:
        while await call.receive_frame() is not None:
            pass
        self.served[address] += 1
        headers = [(b":status", b"200"), (b"content-type", b"application/grpc")]
        await call.respond(headers, EMPTY, [(b"grpc-status", b"0")])

    async def call(self) -> None:
        peer = await self.peers.pick("app", "default")
        with self.peers.watch(peer):
            await peer.channel.unary_raw(REQUEST, EMPTY)

    async def calls(self, count: int, pause: float = 0.0) -> int:
        """How many of them failed."""
        failed = 0
        for _ in range(count):
            try:
                await self.call()
            except GRPCError:
                failed += 1
            await trio.sleep(pause)
        return failed


@asynccontextmanager
async def running(pool: PeerLimits | None = None) -> AsyncIterator[Mesh]:
    mesh = Mesh()
    dial: Any = partial(mesh.network.dial, source="me")
    async with trio.open_nursery() as nursery:
        for address in ADDRESSES:
            server = Server(fallback=partial(mesh.serve, address))
            await nursery.start(server.serve, [mesh.network.listen(address)])
        async with open_peers(Directory(mesh), dial=dial, rng=random.Random(2), pool=pool) as mesh.peers:
            yield mesh
        nursery.cancel_scope.cancel()


async def test_calls_go_to_both(autojump_clock: MockClock) -> None:
    async with running() as mesh:
        assert await mesh.calls(100) == 0
        assert min(mesh.served[address] for address in ADDRESSES) > 25


async def test_a_dead_instance_costs_one_call_and_comes_back_by_itself(autojump_clock: MockClock) -> None:
    async with running() as mesh:
        await mesh.calls(20)
        mesh.network.link("me", "a:1").cut()
        mesh.served.clear()
        assert await mesh.calls(120, pause=1) <= 1
        assert mesh.served["a:1"] == 0
        mesh.network.link("me", "a:1").heal()
        await trio.sleep(120)
        assert await mesh.calls(50) == 0
        assert mesh.served["a:1"] > 5


async def test_when_all_are_dead_the_error_is_quick_and_recovery_does_not_wait_for_the_backoff(
    autojump_clock: MockClock,
) -> None:
    async with running(PeerLimits(failure=5.0)) as mesh:
        await mesh.calls(20)
        mesh.network.link("me", ANY).cut()
        began = trio.current_time()
        assert await mesh.calls(600, pause=1) == 600
        assert trio.current_time() - began == pytest.approx(600)
        mesh.network.link("me", ANY).heal()
        assert await mesh.calls(10, pause=1) < 8


async def test_a_lost_connection_says_whether_the_request_was_sent(autojump_clock: MockClock) -> None:
    async with running() as mesh:
        mesh.network.link("me", ANY).cut()
        with pytest.raises(ConnectionLost) as caught:
            await mesh.call()
        assert not caught.value.sent


async def test_connections_close_when_idle(autojump_clock: MockClock) -> None:
    async with running(PeerLimits(idle=300)) as mesh:
        await mesh.calls(20)
        links = [mesh.network.link("me", address) for address in ADDRESSES]
        assert [link.connections for link in links] == [1, 1]
        await trio.sleep(302)
        assert [link.connections for link in links] == [0, 0]
        assert await mesh.calls(20) == 0


async def test_an_instance_that_moves_is_followed(autojump_clock: MockClock) -> None:
    async with running() as mesh:
        mesh.addresses = ["a:1"]
        await mesh.calls(5)
        mesh.addresses = ["b:1"]
        await trio.sleep(3)
        assert await mesh.calls(5) == 0
        assert mesh.served == {"a:1": 5, "b:1": 5}
        await trio.sleep(2)
        assert mesh.network.link("me", "a:1").connections == 0
