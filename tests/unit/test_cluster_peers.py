"""The pool of peers, over channels that only pretend: who is picked, what is opened, when it closes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.cluster import Directory, NoAddress, Peer, PeerLimits, Peers, PeerUnavailable, open_peers
from meshnode.errors import MeshError, Status
from meshnode.interfaces import Instance
from meshnode.transport import ChannelState, ConnectionLost

ORDERS = ("orders", "default")


READY, IDLE, FAILING = ChannelState.READY, ChannelState.IDLE, ChannelState.TRANSIENT_FAILURE


@define(eq=False)
class FakeChannel:
    instance: Instance
    state: ChannelState = READY
    in_flight: int = 0
    open: bool = True
    dialled: int = 0
    reachable: trio.Event = field(factory=trio.Event)

    async def wait_ready(self) -> None:
        self.dialled += 1
        await self.reachable.wait()
        self.state = READY


@define
class World:
    """A resolver and the channels that were made."""

    known: dict[tuple[str, str], list[str]] = field(factory=lambda: {ORDERS: ["a:1", "b:1"]})
    max_age: float = 2.0
    channels: list[FakeChannel] = field(factory=list)
    refuse: Exception | None = None
    closing: float = 0.0
    asked: int = 0

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        yield

    async def resolve(self, app_id: str, namespace: str) -> list[str]:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return list(self.known.get((app_id, namespace), []))

    @asynccontextmanager
    async def connect(self, instance: Instance) -> AsyncIterator[Any]:
        if self.refuse is not None:
            raise self.refuse
        channel = FakeChannel(instance)
        self.channels.append(channel)
        try:
            yield channel
        finally:
            channel.open = False
            with trio.CancelScope(shield=True):
                await trio.sleep(self.closing)

    def pool(self, pool: PeerLimits | None = None, seed: int = 1) -> AbstractAsyncContextManager[Peers]:
        return open_peers(
            Directory(self), rng=random.Random(seed), pool=pool or PeerLimits(), connect=self.connect
        )

    def open_addresses(self) -> list[str]:
        return sorted(channel.instance.address for channel in self.channels if channel.open)


def fake(peer: Peer) -> FakeChannel:
    channel: Any = peer.channel
    assert isinstance(channel, FakeChannel)
    return channel


async def both(peers: Peers) -> tuple[Peer, Peer]:
    """The peers at a:1 and b:1, both open."""
    a = await peers.pick(*ORDERS, exclude={"b:1"})
    b = await peers.pick(*ORDERS, exclude={"a:1"})
    assert (a.instance.address, b.instance.address) == ("a:1", "b:1")
    return a, b


async def picks(peers: Peers, count: int = 100) -> Counter[str]:
    return Counter([(await peers.pick(*ORDERS)).instance.address for _ in range(count)])


def connection_lost(peers: Peers, peer: Peer, *, in_group: bool = False) -> None:
    lost: Exception = ConnectionLost("gone", sent=False)
    with pytest.raises((ConnectionLost, ExceptionGroup)), peers.watch(peer):
        raise ExceptionGroup("", [ValueError(), lost]) if in_group else lost


# ---- sharing and choosing ----


async def test_one_channel_per_instance_shared_by_all_calls() -> None:
    world = World()
    world.known[ORDERS] = ["a:1"]
    found: list[Peer] = []

    async def pick(peers: Peers) -> None:
        found.append(await peers.pick(*ORDERS))

    async with world.pool() as peers, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(pick, peers)
    assert len({id(peer) for peer in found}) == 1
    assert len(world.channels) == 1
    assert world.channels[0].instance == Instance("orders", "a:1", "default")
    assert world.open_addresses() == [], "leaving the pool closes its channels"


async def test_a_known_peer_is_picked_without_a_checkpoint() -> None:
    async with World().pool() as peers:
        await both(peers)
        with trio.CancelScope() as scope:
            scope.cancel()
            await peers.pick(*ORDERS)


async def test_calls_spread_evenly_when_all_are_idle() -> None:
    async with World().pool() as peers:
        await both(peers)
        counts = await picks(peers, 400)
    assert min(counts.values()) > 140


async def test_of_two_the_one_with_fewer_calls_is_taken() -> None:
    async with World().pool() as peers:
        a, b = await both(peers)
        with peers.watch(a):
            assert await picks(peers) == {"b:1": 100}
            with peers.watch(b), peers.watch(b):
                assert await picks(peers) == {"a:1": 100}
        fake(a).in_flight = 3  # calls made without `watch` count too
        assert await picks(peers) == {"b:1": 100}


async def test_the_busiest_of_many_is_never_taken() -> None:
    world = World()
    world.known[ORDERS] = [f"{name}:1" for name in "abcdefgh"]
    async with world.pool() as peers:
        for address in world.known[ORDERS]:
            peer = await peers.pick(*ORDERS, exclude=set(world.known[ORDERS]) - {address})
            fake(peer).in_flight = 5 if address == "c:1" else 1
        counts = await picks(peers, 500)
    assert counts["c:1"] == 0
    assert len(counts) == 7


async def test_same_seed_same_choices() -> None:
    async def history(seed: int) -> list[str]:
        world = World()
        async with world.pool(seed=seed) as peers:
            return [(await peers.pick(*ORDERS)).instance.address for _ in range(30)]

    assert await history(1) == await history(1)
    assert await history(1) != await history(2)


async def test_excluded_instances_are_taken_only_when_there_is_no_other() -> None:
    async with World().pool() as peers:
        for _ in range(20):
            assert (await peers.pick(*ORDERS, exclude={"a:1"})).instance.address == "b:1"
        await peers.pick(*ORDERS, exclude={"a:1", "b:1"})


async def test_nobody_there() -> None:
    async with World().pool() as peers:
        with pytest.raises(NoAddress, match=r"^no host found with the given ID$") as caught:
            await peers.pick("ghost", "default")
        assert caught.value.code is Status.UNKNOWN
        assert caught.value.app_id == "ghost"


# ---- instances that fail ----


@pytest.mark.parametrize("in_group", [False, True])
async def test_an_instance_whose_connection_failed_is_passed_over_for_a_while(
    autojump_clock: MockClock, in_group: bool
) -> None:
    async with World().pool(PeerLimits(failure=5.0)) as peers:
        a, _ = await both(peers)
        connection_lost(peers, a, in_group=in_group)
        assert await picks(peers) == {"b:1": 100}
        await trio.sleep(4.9)
        assert await picks(peers) == {"b:1": 100}
        await trio.sleep(0.2)
        assert set(await picks(peers)) == {"a:1", "b:1"}


async def test_an_instance_that_failed_is_dialled_by_its_own_task_and_no_call(
    autojump_clock: MockClock,
) -> None:
    async with World().pool(PeerLimits(failure=5.0)) as peers:
        a, _ = await both(peers)
        fake(a).state = IDLE
        connection_lost(peers, a)
        await trio.sleep(4)
        assert fake(a).dialled == 0
        await trio.sleep(60)
        assert fake(a).dialled == 1
        assert await picks(peers) == {"b:1": 100}
        fake(a).reachable.set()
        await wait_all_tasks_blocked()
        assert set(await picks(peers)) == {"a:1", "b:1"}


async def test_an_instance_that_is_dropped_while_it_is_dialled_closes(autojump_clock: MockClock) -> None:
    world = World(max_age=0.0)
    async with world.pool(PeerLimits(failure=5.0)) as peers:
        a, _ = await both(peers)
        fake(a).state = IDLE
        connection_lost(peers, a)
        await trio.sleep(10)
        world.known[ORDERS] = ["b:1"]
        await peers.pick(*ORDERS)
        await trio.sleep(2)
        assert world.open_addresses() == ["b:1"]


async def test_a_call_that_succeeds_ends_the_passing_over() -> None:
    async with World().pool() as peers:
        a, _ = await both(peers)
        connection_lost(peers, a)
        with peers.watch(a):
            pass
        assert set(await picks(peers)) == {"a:1", "b:1"}


async def test_other_errors_are_no_failure_of_the_connection() -> None:
    async with World().pool() as peers:
        a, _ = await both(peers)
        with pytest.raises(ValueError), peers.watch(a):
            raise ValueError
        with trio.CancelScope() as scope, peers.watch(a):
            scope.cancel()
            await trio.lowlevel.checkpoint()
        assert set(await picks(peers)) == {"a:1", "b:1"}


async def test_an_instance_that_cannot_be_reached_is_passed_over_until_it_can() -> None:
    async with World().pool() as peers:
        a, _ = await both(peers)
        fake(a).state = FAILING
        assert await picks(peers) == {"b:1": 100}
        fake(a).state = READY
        assert set(await picks(peers)) == {"a:1", "b:1"}


async def test_the_first_failure_asks_the_resolver_again_and_a_storm_does_not(mock_clock: MockClock) -> None:
    world = World(max_age=1000)
    async with world.pool(PeerLimits(failure=5.0)) as peers:
        a, _ = await both(peers)
        assert world.asked == 1
        for _ in range(10):
            connection_lost(peers, a)
            await peers.pick(*ORDERS)
        assert world.asked == 2
        mock_clock.jump(6)
        connection_lost(peers, a)
        await peers.pick(*ORDERS)
        assert world.asked == 3


async def test_when_all_fail_the_one_that_failed_longest_ago_is_tried(autojump_clock: MockClock) -> None:
    async with World().pool() as peers:
        a, b = await both(peers)
        connection_lost(peers, b)
        await trio.sleep(1)
        connection_lost(peers, a)
        assert await peers.pick(*ORDERS) is b


async def test_a_lone_instance_that_is_down_is_dialled_afresh_but_not_by_every_call(
    autojump_clock: MockClock,
) -> None:
    world = World()
    world.known[ORDERS] = ["a:1"]
    async with world.pool(PeerLimits(failure=5.0)) as peers:
        first = await peers.pick(*ORDERS)
        fake(first).state = FAILING
        connection_lost(peers, first)
        assert await peers.pick(*ORDERS) is first, "it failed just now: its own error is answer enough"
        await trio.sleep(5.1)
        second = await peers.pick(*ORDERS)
        assert second is not first
        await trio.sleep(1.1)
        assert [channel.open for channel in world.channels] == [False, True]


async def test_a_channel_that_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    world = World(refuse=OSError("no certificate"))
    async with world.pool() as peers:
        with pytest.raises(
            PeerUnavailable, match=r"failed to connect to orders at .*: no certificate"
        ) as caught:
            await peers.pick(*ORDERS)
        assert caught.value.code is Status.UNAVAILABLE
        world.refuse = None
        await peers.pick(*ORDERS)
    assert "no certificate" in caplog.text


# ---- coming and going ----


async def test_a_channel_without_calls_closes(autojump_clock: MockClock) -> None:
    world = World()
    async with world.pool(PeerLimits(idle=300)) as peers:
        a, _ = await both(peers)
        await trio.sleep(200)
        with peers.watch(a):
            await trio.sleep(200)
        assert world.open_addresses() == ["a:1"]
        await trio.sleep(299)
        assert world.open_addresses() == ["a:1"]
        await trio.sleep(2)
        assert world.open_addresses() == []
        assert len(peers) == 0
        assert fake(await peers.pick(*ORDERS)).open


async def test_a_channel_that_is_closing_is_not_picked(autojump_clock: MockClock) -> None:
    world = World(closing=10)
    async with world.pool(PeerLimits(idle=300)) as peers:
        a, _ = await both(peers)
        await trio.sleep(301)
        assert not fake(a).open
        again, _ = await both(peers)
        assert again is not a
        assert fake(again).open


async def test_a_channel_with_a_call_never_idles(autojump_clock: MockClock) -> None:
    world = World()
    async with world.pool(PeerLimits(idle=300)) as peers:
        a, b = await both(peers)
        fake(b).in_flight = 1
        with peers.watch(a):
            await trio.sleep(10_000)
            assert world.open_addresses() == ["a:1", "b:1"]


async def test_an_instance_the_resolver_drops_closes_after_its_last_call(autojump_clock: MockClock) -> None:
    world = World(max_age=2.0)
    async with world.pool() as peers:
        a, b = await both(peers)
        world.known[ORDERS] = ["c:1"]
        with peers.watch(a):
            await trio.sleep(3)
            assert (await peers.pick(*ORDERS)).instance.address == "c:1"
            await trio.sleep(2)
            assert world.open_addresses() == ["a:1", "c:1"]
            assert fake(a).open
            assert not fake(b).open
        await trio.sleep(2)
        assert world.open_addresses() == ["c:1"]


async def test_an_app_that_goes_takes_its_channels_along(autojump_clock: MockClock) -> None:
    world = World(max_age=2.0)
    async with world.pool() as peers:
        await both(peers)
        del world.known[ORDERS]
        await trio.sleep(3)
        with pytest.raises(NoAddress):
            await peers.pick(*ORDERS)
        await trio.sleep(2)
        assert world.open_addresses() == []
        assert len(peers) == 0


async def test_a_peer_just_picked_is_not_closed_under_its_call(autojump_clock: MockClock) -> None:
    world = World(max_age=0.0)
    async with world.pool() as peers:
        a, _ = await both(peers)
        world.known[ORDERS] = ["b:1"]
        await peers.pick(*ORDERS)
        await wait_all_tasks_blocked()
        assert fake(a).open
        with peers.watch(a):
            await trio.sleep(100)
            assert fake(a).open


async def test_two_app_ids_at_one_address_have_a_channel_each() -> None:
    world = World()
    world.known = {ORDERS: ["a:1"], ("orders", "production"): ["a:1"], ("checkout", "default"): ["a:1"]}
    async with world.pool() as peers:
        for name in world.known:
            await peers.pick(*name)
        assert len(world.channels) == len(peers) == 3


async def test_the_pool_is_bounded_the_one_idle_longest_gives_way(autojump_clock: MockClock) -> None:
    world = World()
    world.known = {(f"app-{n}", "default"): [f"{n}:1"] for n in range(4)}
    async with world.pool(PeerLimits(peers=3)) as peers:
        for n in range(3):
            await peers.pick(f"app-{n}", "default")
            await trio.sleep(0.1)
        with peers.watch(await peers.pick("app-0", "default")):
            await trio.sleep(0.1)
            await peers.pick("app-3", "default")
            await trio.sleep(1.5)
            assert world.open_addresses() == ["0:1", "2:1", "3:1"]
            assert len(peers) == 3


async def test_a_pool_full_of_busy_peers_refuses() -> None:
    world = World()
    world.known = {(f"app-{n}", "default"): [f"{n}:1"] for n in range(2)}
    async with world.pool(PeerLimits(peers=1)) as peers:
        with peers.watch(await peers.pick("app-0", "default")):
            with pytest.raises(MeshError, match="too many peers") as caught:
                await peers.pick("app-1", "default")
            assert caught.value.code is Status.RESOURCE_EXHAUSTED
        await peers.pick("app-1", "default")


async def test_errors_of_the_body_come_out_bare() -> None:
    async def body() -> None:
        async with World().pool() as peers:
            await peers.pick(*ORDERS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
