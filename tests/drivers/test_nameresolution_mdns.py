"""nameresolution.mdns on the loopback: conformance, what it remembers, and
zeroconf's own stack as the peer.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import pytest
import trio
import zeroconf
from hypothesis import given
from hypothesis import strategies as st
from meshnode_nameresolution_mdns import MdnsOptions, MdnsResolver, driver
from meshnode_nameresolution_mdns import _packets as packets
from meshnode_nameresolution_mdns._dns import DNSOutgoing, DNSPointer, DNSQuestion
from meshnode_nameresolution_mdns._packets import Service
from meshnode_nameresolution_mdns._sightings import MOST, Sightings

from meshnode.errors import ComponentError, ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, Instance
from meshnode.registry import load_options
from meshnode.testing.conformance import nameresolution

LOOPBACK = "127.0.0.1"


def opened(namespace: str = "default", **options: Any) -> AbstractAsyncContextManager[MdnsResolver]:
    context = DriverContext(component="nr", app_id="me", namespace=namespace, rng=random.Random())
    return driver.open(MdnsOptions(**{"interfaces": (LOOPBACK,), **options}), context)


def app_id() -> str:
    """Nobody else on this machine has it."""
    return f"app-{random.getrandbits(48):012x}"


def service(
    app: str = "orders", label: str = "host-1", namespace: str = "default", at: str = "10.0.0.1:50002"
) -> Service:
    return Service.at(app, namespace, at, label)


def heard(sightings: Sightings, now: float, *services: Service, ttl: int = packets.TTL) -> None:
    for packet in packets.announcement(services, ttl):
        message = packets.parse(packet)
        assert message is not None
        sightings.hear(message.answers(), now)


@pytest.mark.parametrize("check", nameresolution.CHECKS, ids=str)
async def test_conformance(check: nameresolution.ResolverCheck) -> None:
    await check.run(partial(opened, browse_timeout=timedelta(milliseconds=400)))


# ---- beside zeroconf, in Dapr's form ----


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[zeroconf.Zeroconf]:
    """An mDNS stack that is not ours, in a thread of its own.

    Its event loop is a plain one, also where a driver has made trio-asyncio's the default of the process.
    """
    monkeypatch.setattr(asyncio, "new_event_loop", asyncio.SelectorEventLoop)
    peer = zeroconf.Zeroconf(interfaces=[LOOPBACK])
    yield peer
    peer.close()


async def test_a_service_announced_as_daprd_does_is_found(peer: zeroconf.Zeroconf) -> None:
    app = app_id()
    info = zeroconf.ServiceInfo(
        f"{app}.local.",
        f"some.host:4711.{app}.local.",
        port=50002,
        addresses=[socket.inet_aton("10.1.2.3")],
        properties=bytes([len(app)]) + app.encode(),
        server="some.host.local.",
    )
    async with opened() as resolver:
        await trio.to_thread.run_sync(partial(peer.register_service, info, strict=False))
        assert await resolver.resolve(app, "default") == ("10.1.2.3:50002",)
        assert await resolver.resolve(app, "production") == ("10.1.2.3:50002",), "daprd says no namespace"
        await trio.to_thread.run_sync(peer.unregister_service, info)
        assert await resolver.resolve(app, "default") == ()


class Heard(zeroconf.RecordUpdateListener):
    """Tells a trio task which pointers zeroconf's thread heard. (Its browser knows only types that begin with
    `_`.)
    """

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._send, self.receive = trio.open_memory_channel[tuple[str, bool]](100)

    def async_update_records(
        self, zc: zeroconf.Zeroconf, now: float, records: list[zeroconf.RecordUpdate]
    ) -> None:
        for record in (update.new for update in records):
            if isinstance(record, DNSPointer):
                self._token.run_sync_soon(self._send.send_nowait, (record.alias, not record.is_expired(now)))


async def test_ours_is_heard_with_all_that_daprd_looks_for(peer: zeroconf.Zeroconf) -> None:
    app = app_id()
    heard = Heard()
    async with opened() as resolver:
        peer.add_listener(heard, DNSQuestion(f"{app}.local.", packets.PTR, 1))
        async with resolver.announce(Instance(app, "127.0.0.1:50002", "production")):
            name, alive = await heard.receive.receive()
            assert alive
            info = zeroconf.ServiceInfo(f"{app}.local.", name)
            assert await trio.to_thread.run_sync(info.request, peer, 3000)
            assert info.port == 50002
            assert info.parsed_addresses() == ["127.0.0.1"]
            first, second = bytes([len(app)]) + app.encode(), b"\x14namespace=production"
            assert info.text == first + second
        async for gone, alive in heard.receive:
            if not alive:
                assert gone == name
                break


# ---- who is found ----


async def test_namespaces_are_apart() -> None:
    app = app_id()
    async with (
        opened(browse_timeout=timedelta(milliseconds=200)) as one,
        opened() as two,
        one.announce(Instance(app, "127.0.0.1:1", "a")),
        two.announce(Instance(app, "127.0.0.1:2", "b")),
    ):
        assert await one.resolve(app, "a") == ("127.0.0.1:1",)
        assert await one.resolve(app, "b") == ("127.0.0.1:2",)
        assert await one.resolve(app, "c") == ()


async def test_an_address_that_dns_cannot_express_is_refused() -> None:
    async with opened() as resolver:
        for instance in (Instance("app", "unix:/run/app.sock"), Instance("x" * 64, "127.0.0.1:1")):
            with pytest.raises(ComponentError, match="mDNS cannot announce"):
                await resolver.announce(instance).__aenter__()


async def test_an_interface_that_is_not_there_is_reported() -> None:
    with pytest.raises(ComponentUnavailable, match=r"cannot use multicast: 198\.51\.100\.7"):
        await opened(interfaces=(LOOPBACK, "198.51.100.7")).__aenter__()


async def test_all_interfaces_by_default() -> None:
    app = app_id()
    async with opened(interfaces=()) as resolver, resolver.announce(Instance(app, "127.0.0.1:50002")):
        assert await resolver.resolve(app, "default") == ("127.0.0.1:50002",)


async def test_garbage_does_not_end_it() -> None:
    app = app_id()
    async with opened() as resolver, resolver.announce(Instance(app, "127.0.0.1:50002")):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            for junk in (b"", b"\0", b"\xff" * 600, b"\0\0\x84\0" + b"\0\1" * 4 + b"\xc0\x0c" * 20):
                sender.sendto(junk, ("224.0.0.251", 5353))
        assert await resolver.resolve(app, "default") == ("127.0.0.1:50002",)


# ---- what is remembered ----


def test_an_instance_is_forgotten_when_it_is_not_heard_of_again() -> None:
    sightings = Sightings()
    heard(sightings, 100, service())
    assert sightings.find("orders", "default", 129).addresses == ("10.0.0.1:50002",)
    assert not sightings.find("orders", "default", 129).stale
    assert sightings.find("orders", "default", 130).stale
    heard(sightings, 150, service())
    assert sightings.find("orders", "default", 209).addresses == ("10.0.0.1:50002",)
    assert sightings.find("orders", "default", 210).addresses == ()
    assert len(sightings) == 0


def test_a_longer_life_than_ours_is_not_granted_a_shorter_one_is() -> None:
    sightings = Sightings()
    heard(sightings, 0, service(label="long", at="10.0.0.1:1"), ttl=3200)
    heard(sightings, 0, service(label="short", at="10.0.0.2:1"), ttl=5)
    assert sightings.find("orders", "default", 6).addresses == ("10.0.0.1:1",)
    assert sightings.find("orders", "default", 60).addresses == ()


def test_a_goodbye_counts_at_once() -> None:
    sightings = Sightings()
    heard(sightings, 0, service(), service(label="host-2", at="10.0.0.2:50002"))
    heard(sightings, 1, service(), ttl=packets.GOODBYE)
    assert sightings.find("orders", "default", 1).addresses == ("10.0.0.2:50002",)


def test_a_new_address_replaces_the_old_one() -> None:
    sightings = Sightings()
    heard(sightings, 0, service(at="10.0.0.1:50002"))
    heard(sightings, 1, service(at="[fd00::7]:50003"))
    assert sightings.find("orders", "default", 1).addresses == ("[fd00::7]:50003",)


def test_the_name_is_exact_though_dns_ignores_case() -> None:
    sightings = Sightings()
    heard(sightings, 0, service("Orders"))
    assert sightings.find("orders", "default", 0).addresses == ()
    assert sightings.find("Orders", "default", 0).addresses == ("10.0.0.1:50002",)


def test_a_pointer_without_the_rest_is_asked_about() -> None:
    (packet,) = packets.announcement([service()], packets.TTL)
    message = packets.parse(packet)
    assert message is not None
    sightings = Sightings()
    sightings.hear(message.answers()[:1], 0)
    found = sightings.find("orders", "default", 0)
    assert found.addresses == ()
    assert found.incomplete == ("host-1.orders.local.",)


def test_memory_is_bounded() -> None:
    sightings = Sightings()
    for number in range(MOST + 10):
        heard(sightings, number / 1000, service(label=f"host-{number}", at=f"10.0.{number % 250}.1:1"))
    assert len(sightings) == MOST
    for packet in packets.announcement([service()], packets.TTL):
        message = packets.parse(packet)
        assert message is not None
        lonely = Sightings()
        lonely.hear(message.answers()[1:], 0)
        assert len(lonely) == 0, "records without a pointer are not kept"


@given(st.binary(max_size=600))
def test_no_packet_is_too_strange(data: bytes) -> None:
    message = packets.parse(data)
    if message is not None:
        packets.answer(message, [service()])
        Sightings().hear(message.answers(), 0)


# ---- who is answered ----


@pytest.mark.parametrize(
    ("name", "kind", "answered"),
    [
        ("orders.local.", packets.PTR, True),
        ("ORDERS.local.", packets.PTR, True),
        ("orders.local.", packets.ANY, True),
        ("host-1.orders.local.", 33, True),
        ("host-1.orders.local.", packets.ANY, True),
        ("host-1.local.", 1, True),
        ("orders.local.", 33, False),
        ("checkout.local.", packets.PTR, False),
        ("_services._dns-sd._udp.local.", packets.PTR, False),
    ],
)
def test_which_questions_are_answered(name: str, kind: int, answered: bool) -> None:
    (packet,) = packets.query([(name, kind)])
    message = packets.parse(packet)
    assert message is not None
    assert packets.answer(message, [service()]) == ([service()] if answered else [])


def test_what_the_asker_knows_is_not_repeated() -> None:
    query = DNSOutgoing(0)
    query.add_question(DNSQuestion("orders.local.", packets.PTR, 1))
    known = DNSPointer("orders.local.", packets.PTR, 1, 50, "host-1.orders.local.")
    query.add_answer_at_time(known, 0)
    message = packets.parse(query.packets()[0])
    assert message is not None
    others = service(label="host-2")
    assert packets.answer(message, [service(), others]) == [others]


# ---- options ----


def test_interfaces_are_addresses() -> None:
    for value in ("10.0.0.1, 127.0.0.1", ["10.0.0.1", "127.0.0.1"]):
        options = load_options(MdnsOptions, {"interfaces": value})
        assert options.interfaces == ("10.0.0.1", "127.0.0.1")
    with pytest.raises(ConfigError, match="interfaces: 'eth0' is no IPv4 address"):
        MdnsOptions(interfaces=("eth0",))
    with pytest.raises(ConfigError, match="browseTimeout: must be positive"):
        MdnsOptions(browse_timeout=timedelta(0))


def test_the_entry_point_names_the_driver() -> None:
    (found,) = entry_points(group="meshnode.nameresolution", name="nameresolution.mdns")
    assert found.load() is driver
