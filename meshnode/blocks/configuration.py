"""The configuration block: get, subscribe and unsubscribe between the wire and a driver.

A subscription lives in its stream's request: it ends with the client, with Unsubscribe, or when the node
leaves. Its first message has its id and nothing else, as Dapr's; changes follow.
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
from meshnode.blocks.ids import fresh_id
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
from meshnode.interfaces import ConfigurationItem, ConfigurationStore
from meshnode.resiliency import Policies, Policy
from meshnode.transport import Stream
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["ConfigurationBlock", "ConfigurationStream", "Configurations", "build_configurations"]

ConfigurationStream = Stream[runtime.SubscribeConfigurationRequest, runtime.SubscribeConfigurationResponse]

_LEAVING = 1.0
"""Seconds that a message under way may take once its subscription is to end."""


@frozen
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
class _Subscription:
    """One stream of changes."""

    def __init__(self, id: str, store: str, stream: ConfigurationStream) -> None:  # noqa: A002
        self.id = id
        self.store = store
        self.stop = trio.Event()
        self._stream = stream
        self._confirmed = trio.Event()

    async def confirm(self) -> None:
        """The first message; no change goes before it."""
        await self._stream.send_message(runtime.SubscribeConfigurationResponse(id=self.id))
        self._confirmed.set()

    async def notify(self, changes: Mapping[str, ConfigurationItem | None]) -> None:
        await self._confirmed.wait()
        items = {key: _item(change) for key, change in changes.items()}
        await self._stream.send_message(runtime.SubscribeConfigurationResponse(id=self.id, items=items))


@final
class ConfigurationBlock:
    """All configuration stores of one node, by component name. `leaving` ends every subscription."""

    def __init__(self, stores: Mapping[str, Configurations], rng: random.Random, leaving: trio.Event) -> None:
        self._stores = dict(stores)
        self._rng = rng
        self._leaving = leaving
        self._live: dict[str, _Subscription] = {}

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
        return runtime.GetConfigurationResponse(items={key: _item(item) for key, item in found.items()})

    async def subscribe(
        self, request: runtime.SubscribeConfigurationRequest, stream: ConfigurationStream, call: Call
    ) -> None:
        """Returns when the subscription has been ended; its stream then ends well."""
        store = self._store(request.store_name)
        keys = tuple(dict.fromkeys(request.keys))
        subscription = _Subscription(fresh_id(self._rng), store.name, stream)
        async with trio.open_nursery() as nursery:
            watch = partial(
                store.driver.watch, keys, request.metadata, subscription.notify, subscription.stop
            )
            try:
                await scoped(store.policy, partial(nursery.start, watch), call)
            except MeshError as error:
                what = f"failed to subscribe {_listed(keys)} from Configuration store {store.name}: {error}"
                code = Status.INVALID_ARGUMENT
                raise _failed(error, "ERR_CONFIGURATION_SUBSCRIBE", store.name, what, code) from error
            with self._registered(subscription):
                nursery.start_soon(self._end_when_leaving, subscription)
                await subscription.confirm()
                await subscription.stop.wait()
            nursery.cancel_scope.deadline = trio.current_time() + _LEAVING

    async def unsubscribe(
        self, request: runtime.UnsubscribeConfigurationRequest, call: Call
    ) -> runtime.UnsubscribeConfigurationResponse:
        store = self._store(request.store_name)
        subscription = self._live.get(request.id)
        if subscription is None or subscription.store != store.name:
            message = f"failed to unsubscribe to configuration request {request.id}"
            return runtime.UnsubscribeConfigurationResponse(
                ok=False, message=f"{message}: subscription does not exist"
            )
        subscription.stop.set()
        return runtime.UnsubscribeConfigurationResponse(ok=True)

    async def _end_when_leaving(self, subscription: _Subscription) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, subscription.stop, scope)
                await self._leaving.wait()
                subscription.stop.set()

    @contextmanager
    def _registered(self, subscription: _Subscription) -> Iterator[None]:
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


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _item(item: ConfigurationItem | None) -> common.ConfigurationItem:
    """What is gone goes out as an item without anything, as in Dapr."""
    if item is None:
        return common.ConfigurationItem()
    return common.ConfigurationItem(value=item.value, version=item.version, metadata=dict(item.metadata))


def _listed(keys: Sequence[str]) -> str:
    return f"[{' '.join(keys)}]"


def _failed(error: MeshError, reason: str, store: str, message: str, code: Status) -> MeshError:
    if isinstance(error, CircuitOpen):
        return error
    return MeshError(
        message, ErrorInfoDetail(reason), ResourceInfoDetail("configuration", store), status=code
    )
