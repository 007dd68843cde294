"""nameresolution.hosts: a list that never changes."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from meshnode_nameresolution_hosts import HostsOptions, HostsResolver, driver

from meshnode.config import load_resources
from meshnode.errors import ConfigError
from meshnode.interfaces import DriverContext, Instance
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import nameresolution


def opened(**hosts: Any) -> AbstractAsyncContextManager[HostsResolver]:
    names = {name.replace("_", "-"): value for name, value in hosts.items()}
    return driver.open(HostsOptions(hosts=names), DriverContext(component="nr", app_id="me"))


@pytest.mark.parametrize("check", nameresolution.STATIC_CHECKS, ids=str)
async def test_conformance(check: nameresolution.ResolverCheck) -> None:
    await check.run(lambda: opened(orders="127.0.0.1:50002"))


async def test_one_address_or_several() -> None:
    async with opened(
        one="127.0.0.1:1", two=["a:1", "unix:/run/b.sock", "a:1"], six="[::1]:50002"
    ) as resolver:
        assert await resolver.resolve("one", "default") == ("127.0.0.1:1",)
        assert await resolver.resolve("two", "default") == ("a:1", "unix:/run/b.sock")
        assert await resolver.resolve("six", "default") == ("[::1]:50002",)
        assert await resolver.resolve("ghost", "default") == ()
        assert resolver.max_age == math.inf


async def test_an_entry_of_the_namespace_comes_before_a_bare_one() -> None:
    async with opened(**{"orders": "a:1", "orders.production": "p:1"}) as resolver:
        assert await resolver.resolve("orders", "default") == ("a:1",)
        assert await resolver.resolve("orders", "production") == ("p:1",)


async def test_announcing_changes_nothing() -> None:
    async with opened(orders="a:1") as resolver, resolver.announce(Instance("me", "m:1")):
        assert await resolver.resolve("me", "default") == ()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (7, "hosts.orders: 7 is no address"),
        ([], "hosts.orders: has no address"),
        ("localhost", "hosts.orders: 'localhost' is no address (host:port or unix:/path)"),
        (["a:1", "b:port"], "'b:port' is no address"),
        ("a:65536", "'a:65536' is no address"),
        (":50002", "':50002' is no address"),
        ("unix:", "'unix:' is no address"),
        ([None], "None is no address"),
        ({"a": "b"}, "hosts.orders: {'a': 'b'} is no address"),
    ],
)
def test_what_is_no_address_is_refused(value: Any, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HostsOptions(hosts={"orders": value})
    assert complaint in str(caught.value)


CONFIGURATION = """\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: mesh
spec:
  nameResolution:
    component: hosts
    configuration:
      hosts:
        order-processor: ["127.0.0.1:50002", "127.0.0.1:50012"]
        checkout: 127.0.0.1:50003
"""


async def test_from_a_configuration_resource(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(CONFIGURATION)
    (configuration,) = load_resources([tmp_path], env={}).configurations
    chosen = configuration.name_resolution
    assert chosen is not None
    found = Registry.discover().driver(f"nameresolution.{chosen.component}", chosen.version)
    options = load_options(found.metadata, chosen.configuration.items(), configuration.source)
    async with found.open(options, DriverContext(component="hosts", app_id="me")) as resolver:
        assert await resolver.resolve("order-processor", "default") == ("127.0.0.1:50002", "127.0.0.1:50012")
        assert await resolver.resolve("checkout", "default") == ("127.0.0.1:50003",)


def test_the_entry_point_names_the_driver() -> None:
    (found,) = entry_points(group="meshnode.nameresolution", name="nameresolution.hosts")
    assert found.load() is driver
