"""nameresolution.hosts: a list that never changes."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from importlib.metadata import entry_points
from typing import Any

import pytest
from meshnode_nameresolution_hosts import HostsOptions, HostsResolver, driver

from meshnode.errors import ConfigError
from meshnode.interfaces import DriverContext, Instance
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


def test_the_entry_point_names_the_driver() -> None:
    (found,) = entry_points(group="meshnode.nameresolution", name="nameresolution.hosts")
    assert found.load() is driver
