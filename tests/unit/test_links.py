"""The in-memory network: stream semantics, then what each kind of trouble does, on the virtual clock."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from meshnode.testing.links import ANY, LinkStream, Network


async def connect(network: Network, address: str = "b:1", source: str = "a") -> tuple[LinkStream, LinkStream]:
    listener = network.listen(address)
    async with listener:
        client = await network.dial(address, source=source)
        return client, await listener.accept()


async def read_exactly(stream: LinkStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = await stream.receive_some(size - len(data))
        assert chunk, "the stream ended early"
        data += chunk
    return data


async def read_all(stream: LinkStream) -> bytes:
    data = b""
    async for chunk in stream:
        data += chunk
    return data


# ---- trio's own conformance suite ----


async def test_is_a_half_closeable_stream() -> None:
    async def pair() -> tuple[LinkStream, LinkStream]:
        return await connect(Network())

    async def clogged() -> tuple[LinkStream, LinkStream]:
        ends = await connect(Network(capacity=1))
        for end in ends:
            await end.send_all(b"x")
        return ends

    await trio.testing.check_half_closeable_stream(pair, clogged)


# ---- order and completeness ----


@settings(max_examples=60, deadline=None)
@given(
    writes=st.lists(st.binary(max_size=3000), max_size=20),
    reads=st.lists(st.integers(1, 4000), min_size=1, max_size=5),
    capacity=st.integers(1, 2000),
    delay=st.floats(0, 3),
    jitter=st.floats(0, 5),
    rate=st.none() | st.floats(100, 1e6),
    seed=st.integers(0, 2**32),
)
def test_bytes_arrive_whole_and_in_order(
    writes: list[bytes],
    reads: list[int],
    capacity: int,
    delay: float,
    jitter: float,
    rate: float | None,
    seed: int,
) -> None:
    async def main() -> bytes:
        network = Network(random.Random(seed), capacity=capacity)
        network.link("a", "b:1").delay(delay, jitter=jitter)
        network.link(ANY, "b:1").throttle(rate)
        client, server = await connect(network)
        received = bytearray()

        async def write() -> None:
            for data in writes:
                await client.send_all(data)
            await client.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            sizes = iter(reads * 100_000)
            while chunk := await server.receive_some(next(sizes)):
                received += chunk
        return bytes(received)

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == b"".join(writes)


def test_same_seed_same_history() -> None:
    async def main(seed: int) -> list[tuple[float, int]]:
        network = Network(random.Random(seed))
        network.link("a", "b:1").delay(1.0, jitter=0.9)
        client, server = await connect(network)
        history = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def write() -> None:
                for number in range(20):
                    await client.send_all(bytes(number))
                    await trio.sleep(0.3)
                await client.send_eof()

            while chunk := await server.receive_some():
                history.append((trio.current_time(), len(chunk)))
        return history

    def run(seed: int) -> list[Any]:
        return trio.run(main, seed, clock=MockClock(autojump_threshold=0))

    assert run(1) == run(1)
    assert run(1) != run(2)


# ---- delay and throttle ----


async def test_a_delay_is_one_way_and_dialling_takes_a_round_trip(autojump_clock: MockClock) -> None:
    network = Network()
    network.link("a", "b:1").delay(0.5)
    client, server = await connect(network)
    assert trio.current_time() == pytest.approx(1.0)
    await client.send_all(b"ping")
    assert await server.receive_some() == b"ping"
    await server.send_all(b"pong")
    assert await client.receive_some() == b"pong"
    assert trio.current_time() == pytest.approx(2.0)


async def test_data_keeps_its_arrival_time_and_is_not_overtaken(autojump_clock: MockClock) -> None:
    network = Network()
    client, server = await connect(network)
    link = network.link("a", "b:1")
    link.delay(3.0)
    await client.send_all(b"slow")
    link.delay(0.0)
    await client.send_all(b"fast")
    assert await read_exactly(server, 8) == b"slowfast"
    assert trio.current_time() == pytest.approx(3.0)


async def test_the_end_of_the_stream_is_delayed_too(autojump_clock: MockClock) -> None:
    network = Network()
    client, server = await connect(network)
    network.link(ANY, ANY).delay(2.0)
    await client.send_all(b"last words")
    await client.aclose()
    assert await read_all(server) == b"last words"
    assert trio.current_time() == pytest.approx(2.0)


async def test_a_throttle_limits_each_direction(autojump_clock: MockClock) -> None:
    network = Network()
    network.link("a", "b:1").throttle(1000)
    network.link(ANY, "b:1").throttle(50_000)  # the narrowest counts
    client, server = await connect(network)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(10_000))
        nursery.start_soon(server.send_all, bytes(5_000))
        await read_exactly(client, 5_000)
        assert trio.current_time() == pytest.approx(5.0)
        await read_exactly(server, 10_000)
    assert trio.current_time() == pytest.approx(10.0)


async def test_many_small_writes_do_not_outrun_a_throttle(autojump_clock: MockClock) -> None:
    network = Network()
    network.link("a", "b:1").throttle(1000)
    client, server = await connect(network)
    for _ in range(10):
        await client.send_all(bytes(1000))
    await read_exactly(server, 10_000)
    assert trio.current_time() == pytest.approx(10.0)


async def test_a_full_connection_holds_its_sender(autojump_clock: MockClock) -> None:
    client, server = await connect(Network(capacity=100))
    with trio.move_on_after(10) as scope:
        await client.send_all(bytes(101))
    assert scope.cancelled_caught
    assert await server.receive_some() == bytes(100)


# ---- cut, black hole, heal ----


async def test_a_cut_resets_both_ends_and_refuses_dials_until_healed() -> None:
    network = Network()
    link = network.link("a", "b:1")
    client, server = await connect(network)
    await client.send_all(b"never read")

    async def reset_while_reading() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reset_while_reading)
        await trio.testing.wait_all_tasks_blocked()
        assert link.connections == 1
        link.cut()
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"x")
    assert link.connections == 0
    with pytest.raises(ConnectionRefusedError):
        await connect(network)
    link.heal()
    client, server = await connect(network)
    await client.send_all(b"again")
    assert await server.receive_some() == b"again"


async def test_a_cut_touches_only_its_own_link() -> None:
    network = Network()
    one = await connect(network, "b:1", "a")
    other = await connect(network, "b:1", "c")
    network.link("a", ANY).cut()
    with pytest.raises(trio.BrokenResourceError):
        await one[0].send_all(b"x")
    await other[0].send_all(b"x")
    assert await other[1].receive_some() == b"x"


async def test_a_black_hole_keeps_what_was_sent_until_it_heals(autojump_clock: MockClock) -> None:
    network = Network()
    client, server = await connect(network)
    link = network.link("a", "b:1")
    link.black_hole()
    await client.send_all(b"patience")
    with trio.move_on_after(100) as silence:
        await server.receive_some()
    assert silence.cancelled_caught
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def heal() -> None:
            await trio.sleep(5)
            link.heal()

        assert await server.receive_some() == b"patience"
    assert trio.current_time() == pytest.approx(105)


@pytest.mark.parametrize("refused", [True, False])
async def test_a_black_hole_holds_dials_until_healed_or_cut(autojump_clock: MockClock, refused: bool) -> None:
    network = Network()
    link = network.link(ANY, "b:1")
    link.black_hole()
    async with network.listen("b:1"), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def later() -> None:
            await trio.sleep(7)
            link.cut() if refused else link.heal()

        if refused:
            with pytest.raises(ConnectionRefusedError):
                await network.dial("b:1")
        else:
            await network.dial("b:1")
        assert trio.current_time() == pytest.approx(7)


# ---- listeners ----


async def test_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        await Network().dial("nowhere:1")


async def test_an_address_is_free_again_after_its_listener_closed() -> None:
    network = Network()
    async with network.listen("b:1"):
        with pytest.raises(OSError, match="in use"):
            network.listen("b:1")
    async with network.listen("b:1") as listener:
        assert listener.address == "b:1"


async def test_closing_a_listener_resets_what_nobody_accepted() -> None:
    network = Network()
    async with network.listen("b:1") as listener:
        client = await network.dial("b:1")
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_closing_a_listener_wakes_who_accepts() -> None:
    async def accept() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    listener = Network().listen("b:1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()


async def test_a_full_backlog_refuses() -> None:
    network = Network()
    async with network.listen("b:1", backlog=1):
        await network.dial("b:1")
        with pytest.raises(ConnectionRefusedError):
            await network.dial("b:1")


async def test_a_dial_given_up_half_way_leaves_no_connection(autojump_clock: MockClock) -> None:
    network = Network()
    network.link("a", "b:1").delay(1.0)
    async with network.listen("b:1") as listener:
        with trio.move_on_after(1.5):
            await network.dial("b:1", source="a")
        server = await listener.accept()
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()
    assert network.link("a", "b:1").connections == 0


async def test_streams_know_their_ends() -> None:
    client, server = await connect(Network())
    assert (client.local, client.remote) == ("a", "b:1")
    assert (server.local, server.remote) == ("b:1", "a")
    await client.aclose()
    await server.aclose()


@pytest.mark.parametrize("bad", [-1.0])
def test_nonsense_is_refused(bad: float) -> None:
    link = Network().link("a", "b")
    with pytest.raises(ValueError):
        link.delay(bad)
    with pytest.raises(ValueError):
        link.throttle(0)
    with pytest.raises(ValueError):
        Network(capacity=0)
