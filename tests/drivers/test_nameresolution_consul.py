"""nameresolution.consul on real agents."""

from __future__ import annotations

import logging
import os
import random
import signal
from functools import partial

import pytest
import trio
from meshnode_nameresolution_consul import driver
from support.consul_servers import consul_agent
from support.install_consul import find_consul
from support.log_records import LogRecords

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode.interfaces import DriverContext, Instance
from meshnode.registry import load_options
from meshnode.testing.conformance import nameresolution

pytestmark = pytest.mark.skipif(find_consul() is None, reason="consul is not installed")

ME = Instance("checkout", "127.0.0.1:50002")
ID = "checkout-127.0.0.1-50002"
SILENT = logging.getLogger("test")


def opened(agent, log=SILENT, env=None, client=None, **settings):
    where = {"client": {"address": agent.address, **(client or {})}, "selfRegister": True}
    context = DriverContext("consul", "checkout", log=log, rng=random.Random(), env=env or {})
    return driver.open(load_options(driver.metadata, {**where, **settings}), context)


async def registered(agent, count):
    """What a daprd is given, which asks for services whose checks pass.

    Agents tell the catalog by and by, so this asks until there are so many.
    """
    with trio.fail_after(30):
        while True:
            found = agent.ask("GET", "/v1/health/service/checkout?passing")
            if len(found) == count:
                return found
            await trio.sleep(0.02)


def by_hand(agent, app_id="checkout", address="10.0.0.9", port="50005", status="passing", **fields):
    """As a daprd registers itself, but for the outcome of its check."""
    name = f"{app_id}-{address}-3500"
    check = {
        "Name": "Dapr Health Status",
        "CheckID": f"daprHealth:{name}",
        "Interval": "10m",
        "HTTP": f"http://{address}:3500/v1.0/healthz?appid={app_id}",
        "Status": status,
    }
    meta = {"DAPR_PORT": port} if port else {}
    body = {"ID": name, "Name": app_id, "Address": address, "Port": 8080, "Checks": [check], "Meta": meta}
    agent.ask("PUT", "/v1/agent/service/register", {**body, **fields})


async def until(resolver, wanted, namespace="default"):
    """What comes about by itself: there is no event to wait for."""
    with trio.fail_after(30):
        while True:
            try:
                if sorted(await resolver.resolve(ME.app_id, namespace)) == sorted(wanted):
                    return
            except ComponentUnavailable:
                pass
            await trio.sleep(0.02)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with consul_agent(tmp_path_factory.mktemp("consul")) as running:
        yield running


@pytest.fixture
def agent(shared):
    """Without services of other tests."""
    for name in shared.ask("GET", "/v1/agent/services"):
        shared.ask("PUT", f"/v1/agent/service/deregister/{name}")
    return shared


@pytest.mark.parametrize(
    "settings",
    [{}, {"selfDeregister": True}, {"useCache": True}, {"queryOptions": {"useCache": False}}],
    ids=["defaults", "selfDeregister", "useCache", "uncached"],
)
@pytest.mark.parametrize("check", nameresolution.CHECKS, ids=str)
async def test_conformance(check, settings, shared):
    await check.run(lambda: opened(shared, **settings))


async def test_what_a_daprd_finds(agent):
    settings = {"tags": ["dapr", "v1"], "meta": {"version": 3}, "selfDeregister": True}
    async with opened(agent, env={"APP_PORT": "8080"}, **settings) as resolver, resolver.announce(ME):
        (entry,) = await registered(agent, 1)
        service = entry["Service"]
        assert (service["ID"], service["Service"], service["Address"]) == (ID, "checkout", "127.0.0.1")
        assert service["Port"] == 8080, "the application's, as there"
        assert service["Meta"] == {"DAPR_PORT": "50002", "version": "3", "MESHNODE_NAMESPACE": "default"}
        assert service["Tags"] == ["dapr", "v1"]
        (check,) = [one for one in entry["Checks"] if one["ServiceID"] == ID]
        assert (check["CheckID"], check["Name"]) == (f"daprHealth:{ID}", "Dapr Health Status")
    assert ID not in agent.ask("GET", "/v1/agent/services")


async def test_what_a_daprd_has_registered(agent):
    by_hand(agent)
    by_hand(agent, address="::1", port="50006")
    by_hand(agent, address="sick.example", status="critical")
    by_hand(agent, address="host.example", Meta={"DAPR_PORT": "1", "MESHNODE_NAMESPACE": "other"})
    async with opened(agent) as resolver:
        await until(resolver, ["10.0.0.9:50005", "[::1]:50006"])
        wanted = {"10.0.0.9:50005", "[::1]:50006", "host.example:1"}
        await until(resolver, wanted, namespace="other")


async def test_a_service_without_an_address_is_at_its_node(agent):
    by_hand(agent, Address="")
    async with opened(agent) as resolver:
        await until(resolver, ["127.0.0.1:50005"])


async def test_a_service_without_the_port(agent):
    by_hand(agent, port="")
    await registered(agent, 1)
    async with opened(agent) as resolver:
        with pytest.raises(ComponentError, match="'checkout' found but DAPR_PORT missing from meta"):
            await resolver.resolve("checkout", "default")
        by_hand(agent, address="10.0.0.2")
        await until(resolver, ["10.0.0.2:50005"])


async def test_another_key_for_the_port(agent):
    async with opened(agent, daprPortMetaKey="MESH_PORT") as resolver, resolver.announce(ME):
        (entry,) = await registered(agent, 1)
        assert entry["Service"]["Meta"]["MESH_PORT"] == "50002"
        await until(resolver, [ME.address])


async def test_by_default_the_service_stays_and_its_check_fails(agent):
    async with opened(agent) as resolver:
        async with resolver.announce(ME):
            pass
        await registered(agent, 0)
        (check,) = agent.ask("GET", "/v1/health/checks/checkout")
        assert (check["Status"], check["Output"]) == ("critical", "the node has left")
        async with resolver.announce(ME):
            await until(resolver, [ME.address])
            await registered(agent, 1)


async def test_checks_of_ones_own(agent):
    """In any case of letters, as Dapr reads them."""
    check = {"name": "mine", "checkID": "mine", "tcp": "127.0.0.1:1", "interval": "10m", "STATUS": "passing"}
    async with opened(agent, checks=[check], selfDeregister=True) as resolver, resolver.announce(ME):
        await until(resolver, [ME.address])
        (found,) = agent.ask("GET", "/v1/health/checks/checkout")
        assert (found["CheckID"], found["Type"]) == ("mine", "tcp")


async def test_an_advanced_registration(agent):
    advanced = {
        "name": "checkout",
        "id": "the-one",
        "address": "10.1.2.3",
        "port": 8080,
        "meta": {"a": "b"},
        "check": {"name": "c", "ttl": "10m", "status": "passing"},
        "taggedAddresses": {"lan": {"address": "10.1.2.3", "port": 8080}},
        "weights": {"passing": 10, "warning": 1},
    }
    settings = {
        "advancedRegistration": advanced,
        "selfRegister": False,
        "selfDeregister": True,
        "tags": ["x"],
    }
    async with opened(agent, **settings) as resolver:
        async with resolver.announce(ME):
            (entry,) = await registered(agent, 1)
            assert entry["Service"]["ID"] == "the-one"
            assert entry["Service"]["Tags"] == []
            assert entry["Service"]["Weights"] == {"Passing": 10, "Warning": 1}
            assert entry["Service"]["TaggedAddresses"]["lan"]["Address"] == "10.1.2.3"
            await until(resolver, ["10.1.2.3:50002"])
        await registered(agent, 0)


async def test_others_register_the_node(agent):
    async with opened(agent, selfRegister=False) as resolver, resolver.announce(ME):
        await until(resolver, [])


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"filter": "Service.Meta.zone == a"}, {"10.0.0.1:50005"}),
        ({"Filter": 'Service.Meta.zone == "b"', "UseCache": True}, {"10.0.0.2:50005"}),
        ({"allowStale": True, "near": "_agent", "maxAge": "1s"}, {"10.0.0.1:50005", "10.0.0.2:50005"}),
        ({"requireConsistent": True, "useCache": True, "waitTime": "1s"},
         {"10.0.0.1:50005", "10.0.0.2:50005"}),
        ({"nodeMeta": {"no": "such"}, "relayFactor": 1, "localOnly": True, "connect": False}, set()),
        ({"useCache": True, "maxAge": 10**9, "staleIfError": "10s", "waitIndex": 7, "waitHash": "x"},
         {"10.0.0.1:50005", "10.0.0.2:50005"}),
    ],
)  # fmt: skip
async def test_query_options(query, found, agent):
    for address, zone in (("10.0.0.1", "a"), ("10.0.0.2", "b")):
        by_hand(agent, address=address, Meta={"DAPR_PORT": "50005", "zone": zone})
    async with opened(agent, queryOptions=query) as resolver:
        await until(resolver, found)


async def test_another_datacenter(agent):
    for settings in ({"queryOptions": {"datacenter": "mars"}}, {"client": {"datacenter": "mars"}}):
        async with opened(agent, **settings) as resolver:
            with pytest.raises(ComponentUnavailable, match="status 500"):
                await resolver.resolve("checkout", "default")


async def test_what_changes_is_heard_of(agent):
    """With `useCache` nobody asks the agent any more, but it tells."""
    async with opened(agent, useCache=True) as resolver:
        by_hand(agent)
        await until(resolver, ["10.0.0.9:50005"])
        by_hand(agent, address="10.0.0.10")
        await until(resolver, ["10.0.0.9:50005", "10.0.0.10:50005"])
        agent.ask("PUT", "/v1/agent/service/deregister/checkout-10.0.0.9-3500")
        await until(resolver, ["10.0.0.10:50005"])


@pytest.mark.parametrize("cached", [False, True])
async def test_an_agent_that_is_killed_and_comes_back_empty(cached, tmp_path):
    records = LogRecords()
    with consul_agent(tmp_path) as agent:
        async with opened(agent, records.log, useCache=cached) as resolver, resolver.announce(ME):
            await until(resolver, [ME.address])
            agent.kill()
            await records.wait_for("no sign of life could be given")
            with pytest.raises(ComponentUnavailable, match=agent.address):
                await resolver.resolve("nobody", "default")
            agent.start()
            await records.wait_for("was gone and is registered again")
            await until(resolver, [ME.address])
            await records.wait_for("signs of life are given again")


async def test_an_agent_that_stands_still(tmp_path):
    records = LogRecords()
    with consul_agent(tmp_path) as agent:
        async with opened(agent, records.log, selfDeregister=True) as resolver:
            async with resolver.announce(ME):
                os.kill(agent.pid, signal.SIGSTOP)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(resolver.resolve, "checkout", "default")
                        await trio.testing.wait_all_tasks_blocked(0.05)
                        nursery.cancel_scope.cancel()
                finally:
                    os.kill(agent.pid, signal.SIGCONT)
                await until(resolver, [ME.address])
                os.kill(agent.pid, signal.SIGSTOP)
            await records.wait_for("could not be told in 2 s that the node leaves")
            os.kill(agent.pid, signal.SIGCONT)
            await until(resolver, [])


async def test_no_agent(tmp_path):
    with consul_agent(tmp_path) as agent:
        pass
    with pytest.raises(ComponentUnavailable, match=agent.address):
        async with opened(agent, selfRegister=False):
            pass
    async with opened(agent) as resolver:
        with pytest.raises(ComponentUnavailable, match=agent.address):
            async with resolver.announce(ME):
                pass


async def test_tokens(tmp_path):
    with consul_agent(tmp_path, token="11111111-2222-3333-4444-555555555555") as agent:
        right = agent.token
        (tmp_path / "token").write_text(f"{right}\n")
        allowed = partial(opened, agent, queryOptions={"useCache": False})
        for client, env in (
            ({"token": right}, {}),
            ({"tokenFile": str(tmp_path / "token"), "token": "wrong"}, {}),
            ({}, {"CONSUL_HTTP_TOKEN": right}),
        ):
            async with allowed(client=client, env=env) as resolver, resolver.announce(ME):
                await until(resolver, [ME.address])
        async with allowed(client={"token": "wrong"}) as resolver:
            with pytest.raises(ComponentError, match="status 403") as caught:
                async with resolver.announce(ME):
                    pass
            assert type(caught.value) is ComponentError
        with pytest.raises(ComponentError, match="status 403"):
            async with opened(agent, selfRegister=False):
                pass
        query = {"token": right, "useCache": False}
        async with opened(agent, queryOptions=query, client={"token": ""}) as resolver:
            await until(resolver, [])
