"""The configuration block: get, subscribe and unsubscribe between the wire and a driver.

A subscription lives in its stream's request: it ends with the client, with Unsubscribe, when the node leaves,
or when its store has gone for good. Its first message has its id and nothing else, as Dapr's; changes follow.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import final

import trio
from attrs import frozen

from meshnode.blocks.call import Call
from meshnode.blocks.configurationwatch import ConfigurationStream, Subscription, Watch, wire_item
from meshnode.blocks.ids import fresh_id
from meshnode.blocks.keeping import first_of
from meshnode.blocks.scoped import scoped
from meshnode.components import Opened
from meshnode.errors import (
    CircuitOpen,
    ErrorInfoDetail,
    InvalidArgument,
    MeshError,
    ResourceInfoDetail,
    Status,
)
from meshnode.interfaces import ConfigurationStore
from meshnode.resiliency import Policies, Policy
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["ConfigurationBlock", "ConfigurationStream", "Configurations", "build_configurations"]

_LEAVING = 1.0
"""Seconds that a message under way may take once its subscription is to end."""


@frozen(eq=False)
class Configurations:
    """One opened configuration store; `policy` is its outbound policy."""

    name: str
    driver: ConfigurationStore
    policy: Policy


def build_configurations(opened: Sequence[Opened], policies: Policies) -> dict[str, Configurations]:
    """The configuration stores among the components, by name."""
    stores: dict[str, Configurations] = {}
    for one in opened:
        if one.planned.kind == "configuration" and one.instance is not None:
            name = one.planned.component.name
            policy = policies.for_component(name, "Configuration")
            stores[name] = Configurations(name, one.instance, policy)
    return stores


@final
class ConfigurationBlock:
    """All configuration stores of one node, by component name. `leaving` ends every subscription."""

    def __init__(self, stores: Mapping[str, Configurations], rng: random.Random, leaving: trio.Event) -> None:
        self._stores = stores
        self._rng = rng
        self._leaving = leaving
        self._live: dict[str, Subscription] = {}

    async def get(
        self, request: runtime.GetConfigurationRequest, call: Call
    ) -> runtime.GetConfigurationResponse:
        store = self._store(request.store_name)
        keys = tuple(dict.fromkeys(request.keys))
        try:
            found = await scoped(store.policy, partial(store.driver.get, keys, request.metadata), call)
        except MeshError as error:
            what = f"failed to get {_listed(keys)} from Configuration store {store.name}: {error}"
            raise _failed(error, "ERR_CONFIGURATION_GET", store.name, what, Status.INTERNAL) from error
        return runtime.GetConfigurationResponse(items={key: wire_item(item) for key, item in found.items()})

    async def subscribe(
        self, request: runtime.SubscribeConfigurationRequest, stream: ConfigurationStream, call: Call
    ) -> None:
        """Returns when the subscription has been ended; its stream then ends well."""
        store = self._store(request.store_name)
        subscription = Subscription(fresh_id(self._rng), store.name, stream)
        async with trio.open_nursery() as nursery:
            with self._registered(subscription):
                await self._watch(nursery, store, subscription, request, call)
                await subscription.confirm()
                while not await self._is_over(subscription):
                    store = self._store(request.store_name)
                    await self._watch(nursery, store, subscription, request, call)
            subscription.end()
            nursery.cancel_scope.deadline = trio.current_time() + _LEAVING

    async def _is_over(self, subscription: Subscription) -> bool:
        """True when it is to end, False when it is to move over to another store."""
        await first_of(subscription.stop.wait, subscription.moved.wait, self._leaving.wait)
        subscription.moved = trio.Event()
        return subscription.stop.is_set() or self._leaving.is_set()

    async def _watch(
        self,
        nursery: trio.Nursery,
        store: Configurations,
        subscription: Subscription,
        request: runtime.SubscribeConfigurationRequest,
        call: Call,
    ) -> None:
        """Begin to watch this store, in the place of the one watched before."""
        keys = tuple(dict.fromkeys(request.keys))
        watch: Watch | None = None

        async def begin() -> None:
            nonlocal watch
            watch = Watch(store.driver, subscription.watch)
            await nursery.start(subscription.keep, watch, keys, request.metadata)

        try:
            await scoped(store.policy, begin, call)
        except MeshError as error:
            what = f"failed to subscribe {_listed(keys)} from Configuration store {store.name}: {error}"
            code = Status.INVALID_ARGUMENT
            raise _failed(error, "ERR_CONFIGURATION_SUBSCRIBE", store.name, what, code) from error
        assert watch is not None
        subscription.take_over(watch)

    def renew(self) -> None:
        """Go by the stores as they are now: subscriptions to one that was opened anew move over to it."""
        for one in self._live.values():
            store = self._stores.get(one.store)
            if one.watch is None or store is None or store.driver is not one.watch.driver:
                one.moved.set()

    async def settled(self, patience: float) -> None:
        """Return when no subscription looks at a store any more that is not there now, at most after
        `patience` seconds.
        """
        moving = [one.watch for one in self._live.values() if one.moved.is_set() and one.watch is not None]
        with trio.move_on_after(patience):
            for watch in moving:
                await watch.ended.wait()

    async def unsubscribe(
        self, request: runtime.UnsubscribeConfigurationRequest, call: Call
    ) -> runtime.UnsubscribeConfigurationResponse:
        """By the id alone, whatever store is named with it, as in the reference."""
        subscription = self._live.get(request.id)
        if subscription is None:
            message = f"failed to unsubscribe to configuration request {request.id}"
            return runtime.UnsubscribeConfigurationResponse(
                ok=False, message=f"{message}: subscription does not exist"
            )
        subscription.stop.set()
        return runtime.UnsubscribeConfigurationResponse(ok=True)

    @contextmanager
    def _registered(self, subscription: Subscription) -> Iterator[None]:
        self._live[subscription.id] = subscription
        try:
            yield
        finally:
            del self._live[subscription.id]

    def _store(self, name: str) -> Configurations:
        """The store of that name, or the error of the reference."""
        store = self._stores.get(name)
        if store is not None:
            return store
        if not self._stores:
            raise MeshError(
                "configuration stores not configured",
                ErrorInfoDetail("ERR_CONFIGURATION_STORE_NOT_CONFIGURED"),
                status=Status.FAILED_PRECONDITION,
            )
        raise InvalidArgument(
            f"configuration store {name} not found",
            ErrorInfoDetail("ERR_CONFIGURATION_STORE_NOT_FOUND"),
            ResourceInfoDetail("configuration", name),
        )


def _listed(keys: Sequence[str]) -> str:
    return f"[{' '.join(keys)}]"


def _failed(error: MeshError, reason: str, store: str, message: str, code: Status) -> MeshError:
    if isinstance(error, CircuitOpen):
        return error
    return MeshError(
        message, ErrorInfoDetail(reason), ResourceInfoDetail("configuration", store), status=code
    )
