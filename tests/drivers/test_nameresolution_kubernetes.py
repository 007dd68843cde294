"""nameresolution.kubernetes on a real DNS server, dnsmasq, in the place of a cluster's."""

from __future__ import annotations

import os
import signal

import pytest
import trio
from meshnode_nameresolution_kubernetes import driver
from support.dns_servers import dns_server
from support.install_dnsmasq import find_dnsmasq
from support.redis_servers import free_port

from meshnode.cluster.directory import Directory
from meshnode.errors import ComponentError, ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, Instance
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import nameresolution

pytestmark = pytest.mark.skipif(find_dnsmasq() is None, reason="dnsmasq is not installed")

ORDERS = "orders-dapr.shop.svc.cluster.local"


def opened(server=None, **settings):
    where = {"nameServers": [server.address]} if server is not None else {}
    options = load_options(driver.metadata, {**where, **settings})
    return driver.open(options, DriverContext("kubernetes", "checkout"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with dns_server(tmp_path_factory.mktemp("dns")) as running:
        yield running


@pytest.fixture
def server(shared):
    shared.tell({ORDERS: ["10.0.0.1", "10.0.0.2", "fd00::1"]})
    return shared


@pytest.mark.parametrize("check", nameresolution.STATIC_CHECKS, ids=str)
async def test_conformance(check, server):
    await check.run(lambda: opened(server))


async def test_all_pods_of_a_service_are_given(server):
    async with opened(server) as resolver:
        found = await resolver.resolve("orders", "shop")
        assert found == ("10.0.0.1:50002", "10.0.0.2:50002", "[fd00::1]:50002")
        assert await resolver.resolve("orders", "other") == ()
        assert await resolver.resolve("order", "shop") == ()


async def test_the_port(server):
    """In a cluster all nodes have the same."""
    async with opened(server) as resolver, resolver.announce(Instance("me", "10.0.0.9:3501")):
        assert "10.0.0.1:3501" in await resolver.resolve("orders", "shop")
    async with opened(server, port="3502") as resolver, resolver.announce(Instance("me", "10.0.0.9:3501")):
        assert "10.0.0.1:3502" in await resolver.resolve("orders", "shop")


async def test_another_domain(server):
    server.tell({"orders-dapr.shop.svc.mesh.internal": ["10.0.0.3"]})
    for domain in ("mesh.internal", ".mesh.internal."):
        async with opened(server, clusterDomain=domain) as resolver:
            assert await resolver.resolve("orders", "shop") == ("10.0.0.3:50002",)


@pytest.mark.parametrize(
    ("template", "address"),
    [
        ("{{.ID}}.{{ .Namespace }}.internal:{{.Port}}", "10.0.0.4:50002"),
        ("{{.ID}}.{{.Namespace}}.internal", "10.0.0.4:50002"),
        ("{{.ID}}.{{.Namespace}}.internal:80", "10.0.0.4:80"),
        ("10.1.2.3:{{.Port}}", "10.1.2.3:50002"),
        ("[fd00::2]:{{.Port}}", "[fd00::2]:50002"),
        ("static.internal:80", "10.0.0.5:80"),
    ],
)
async def test_templates(template, address, server):
    server.tell({"orders.shop.internal": ["10.0.0.4"], "static.internal": ["10.0.0.5"]})
    async with opened(server, template=template, clusterDomain="elsewhere") as resolver:
        assert await resolver.resolve("orders", "shop") == (address,)


async def test_more_pods_than_a_datagram_holds(server):
    """A cut answer is asked for again by TCP."""
    pods = [f"10.1.{number // 100}.{number % 100}" for number in range(300)]
    server.tell({ORDERS: pods})
    async with opened(server) as resolver:
        found = await resolver.resolve("orders", "shop")
    assert set(found) == {f"{pod}:50002" for pod in pods}


@pytest.mark.parametrize("app_id", ["x" * 70, "a..b", ".", "größe", "\ud800", "a b", "a\0b", "*"])
async def test_what_can_be_no_name_is_nobodys(app_id, server):
    async with opened(server) as resolver:
        assert await resolver.resolve(app_id, "shop") == ()


async def test_addresses_that_change_are_seen(server):
    async with opened(server) as resolver:
        for pods in (["10.0.0.7"], ["10.0.0.7", "10.0.0.8"], ["10.0.0.8"], []):
            server.tell({ORDERS: pods})
            assert await resolver.resolve("orders", "shop") == tuple(f"{pod}:50002" for pod in pods)


async def test_a_connection_that_failed_is_looked_up_at_once(server):
    """Whatever `max_age` says: as the node does it."""
    async with opened(server) as resolver:
        directory = Directory(resolver)
        assert "10.0.0.1:50002" in await directory.lookup("orders", "shop")
        server.tell({ORDERS: ["10.0.0.7"]})
        assert "10.0.0.1:50002" in await directory.lookup("orders", "shop")
        directory.invalidate("orders", "10.0.0.1:50002", "shop")
        assert await directory.lookup("orders", "shop") == ("10.0.0.7:50002",)


async def test_a_server_that_is_killed_and_comes_back(tmp_path):
    with dns_server(tmp_path) as server:
        server.tell({ORDERS: ["10.0.0.1"]})
        async with opened(server) as resolver:
            assert await resolver.resolve("orders", "shop") == ("10.0.0.1:50002",)
            server.kill()
            with pytest.raises(ComponentUnavailable, match=f"failed to resolve address for '{ORDERS}"):
                await resolver.resolve("orders", "shop")
            server.start()
            assert await resolver.resolve("orders", "shop") == ("10.0.0.1:50002",)


async def test_a_server_that_stands_still(tmp_path):
    with dns_server(tmp_path) as server:
        server.tell({ORDERS: ["10.0.0.1"]})
        async with opened(server) as resolver:
            os.kill(server.pid, signal.SIGSTOP)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(resolver.resolve, "orders", "shop")
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
            with pytest.raises(ComponentUnavailable):
                await resolver.resolve("orders", "shop")
            os.kill(server.pid, signal.SIGCONT)
            assert await resolver.resolve("orders", "shop") == ("10.0.0.1:50002",)


async def test_a_second_server_takes_the_place_of_one_that_is_not_there(server):
    nobody = f"127.0.0.1:{free_port()}"
    async with opened(nameServers=[nobody, server.address]) as resolver:
        assert len(await resolver.resolve("orders", "shop")) == 3


async def test_a_server_that_refuses(tmp_path):
    """It knows nothing of that domain, and whom to ask neither."""
    with dns_server(tmp_path) as server:
        async with opened(server, clusterDomain="elsewhere.example") as resolver:
            with pytest.raises(ComponentUnavailable, match="REFUSED"):
                await resolver.resolve("orders", "shop")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"template": "{{.ID}}-{{.Data.region}}.internal"}, r"template: knows {{.ID}}.*not {{.Data.region}}"),
        ({"template": "{{if .ID}}x{{end}}"}, "not {{if .ID}}"),
        ({"template": "{{ID}}"}, "not {{ID}}"),
        ({"template": "{{.ID}"}, "a brace without its other one"),
        ({"template": "{{.ID}} }}"}, "a brace without its other one"),
        ({"clusterDomain": "."}, "clusterDomain: is empty"),
        ({"port": "70000"}, "port: 70000 is no port"),
        ({"nameServers": "dns.example"}, "nameServers: 'dns.example' is no IP address"),
        ({"nameServers": ["10.0.0.1:x"]}, "has no port"),
        ({"domain": "x"}, "domain"),
    ],
)
def test_settings_that_cannot_be_used(settings, said):
    with pytest.raises(ConfigError, match=said):
        opened(**settings)


def test_addresses_of_servers():
    given = ["10.0.0.1", "10.0.0.1:5353", "::1", "[::1]:5353", "[::1]"]
    options = load_options(driver.metadata, {"nameServers": given})
    assert options.servers == [
        ("10.0.0.1", 53), ("10.0.0.1", 5353), ("::1", 53), ("::1", 5353), ("::1", 53),
    ]  # fmt: skip


async def test_a_system_without_servers(monkeypatch, tmp_path):
    import dns.resolver
    from dns.asyncresolver import Resolver

    def nothing(self, filename):
        raise dns.resolver.NoResolverConfiguration("nothing")

    monkeypatch.setattr(Resolver, "read_resolv_conf", nothing)
    with pytest.raises(ComponentError, match="names no DNS server"):
        async with opened():
            pass


def test_it_is_found_by_its_entry_point():
    assert Registry.discover().driver("nameresolution.kubernetes") is driver
