"""Nodes as processes that find each other through a registry that the Configuration names."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from support.consul_servers import consul_agent
from support.dns_servers import dns_server
from support.grpc_apps import blob_app, call
from support.install_consul import find_consul
from support.install_dnsmasq import find_dnsmasq
from support.processes import Node, node, wait_until
from support.redis_servers import find_redis_server, free_port, redis_server

CONFIGURATION = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: mesh}}
spec:
  nameResolution:
    component: {component}
    configuration: {{{settings}}}
"""
PORT = free_port()
"""Of the callee's internal server, which a cluster's DNS does not tell."""


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    with redis_server(folder) as server:
        yield CONFIGURATION.format(component="redis", settings=f"redisHost: '{server.address}', ttl: 2s")


@contextmanager
def consul(folder: Path) -> Iterator[str]:
    with consul_agent(folder) as agent:
        settings = f"client: {{address: '{agent.address}'}}, selfRegister: true, tags: ['${{APP_ID}}']"
        yield CONFIGURATION.format(component="consul", settings=settings)
        services = agent.ask("GET", "/v1/catalog/services")
        assert {name: tags for name, tags in services.items() if name != "consul"} == {
            "caller": ["caller"], "callee": ["callee"],
        }  # fmt: skip


@contextmanager
def kubernetes(folder: Path) -> Iterator[str]:
    with dns_server(folder) as server:
        server.tell({"callee-dapr.default.svc.cluster.local": ["127.0.0.1"]})
        settings = f"nameServers: '{server.address}', port: {PORT}"
        yield CONFIGURATION.format(component="kubernetes", settings=settings)


REGISTRIES = [
    pytest.param(redis, marks=pytest.mark.skipif(not find_redis_server(), reason="no redis-server")),
    pytest.param(consul, marks=pytest.mark.skipif(not find_consul(), reason="consul is not installed")),
    pytest.param(kubernetes, marks=pytest.mark.skipif(not find_dnsmasq(), reason="no dnsmasq")),
]


@contextmanager
def started(app_id: str, home: Path, resources: str, *flags: str, port: int | None = None) -> Iterator[Node]:
    env = {"DAPR_HOST_IP": "127.0.0.1"}
    with node(app_id, home, *flags, resources=resources, app_port=port, env=env) as running:
        yield running


@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_node_is_found_lost_and_found_again(
    registry: Callable[[Path], Iterator[str]], tmp_path: Path
) -> None:
    def answered(data: bytes) -> bool:
        try:
            return bool(call(channel, data, to="callee", timeout=10).result() == data)
        except grpc.RpcError:
            return False

    internal = ("--dapr-internal-grpc-port", str(PORT)) if registry is kubernetes else ()
    with (
        registry(tmp_path) as resources,
        blob_app(lambda request, _: request) as port,
        started("caller", tmp_path, resources) as caller,
        grpc.insecure_channel(caller.address) as channel,
    ):
        assert not answered(b"0"), "nobody is there yet"
        for turn in range(2):
            with started("callee", tmp_path, resources, *internal, port=port) as callee:
                wait_until(lambda: answered(b"1"), what="the callee being found")
                callee.process.end(signal.SIGTERM if turn else signal.SIGKILL)
        assert not answered(b"2"), "it has gone"
        assert caller.process.end() == 0
