"""Hot reload: a running node goes by resources that have changed.

In this order: everything is checked, as at a start, and what is new or changed is opened beside what is
there; until then nothing has happened and any mistake leaves all as it was. Then, in one step, the blocks'
tables change: requests that come from now on go by the new components and policies, those under way finish
with what they have. Subscriptions, input bindings, outboxes and configuration watches move over. At last
what nobody uses any more is closed.

A component that cannot be opened keeps its old instance, if it has one. The Configuration resource is read at
the start only. Beside `node` at the composition root.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import final

import trio
from attrs import evolve

from meshnode.asyncioloop import LateLoop, hold_loop
from meshnode.blocks.call import Call
from meshnode.components import ComponentHost, Opened, Planned, secret_stores
from meshnode.config import Resources
from meshnode.config.nodeoptions import NodeOptions
from meshnode.errors import MeshError, Status
from meshnode.planning import Plan, make_plan
from meshnode.registry import Registry
from meshnode.resiliency import unwrap
from meshnode.surfaces import Parts, Surfaces
from meshnode.surroundings import Surroundings
from meshnode.tables import build_tables

__all__ = ["Reloader"]

_log = logging.getLogger("meshnode.reload")

_DAPR = "/dapr.proto.runtime.v1.Dapr/"
_INBOUND = ("/pubsub/", "/bindings/", "/outbox/")
_LONG = frozenset(
    {f"{_DAPR}InvokeService", f"{_DAPR}SubscribeTopicEventsAlpha1"}
    | {f"{_DAPR}SubscribeConfiguration", f"{_DAPR}SubscribeConfigurationAlpha1"}
)
"""They use no component themselves, or move over to another one when they are told to."""


@final
class _Order:
    """What one caller of `Reloader.reload` wants, and what became of it."""

    def __init__(self, resources: Resources, registry: Registry | None) -> None:
        self.resources = resources
        self.registry = registry
        self.done = trio.Event()
        self.left: Sequence[str] = ()
        self.error: MeshError | None = MeshError("the node is shutting down", status=Status.UNAVAILABLE)


@final
class Reloader:
    """`run` does, one after the other, what `reload` is asked for."""

    def __init__(
        self,
        options: NodeOptions,
        parts: Parts,
        surfaces: Surfaces,
        registry: Registry,
        around: Surroundings,
    ) -> None:
        self._options = options
        self._parts = parts
        self._surfaces = surfaces
        self._registry = registry
        self._around = evolve(around, naming=parts.plan.naming)
        self._configuration = parts.plan.configuration
        self._loop: LateLoop | None = None
        self._orders, self._taken = trio.open_memory_channel[_Order](0)

    async def reload(self, resources: Resources, registry: Registry | None = None) -> Sequence[str]:
        """Go by these resources; returns when subscriptions have moved over, with a sentence for each
        component that could not be opened and is as it was. `registry` is for types that were not there
        before.

        Raises `ConfigError` for resources that cannot be used: then nothing has changed. Raises `MeshError`
        where the node is shutting down.
        """
        order = _Order(resources, registry)
        try:
            await self._orders.send(order)
            await order.done.wait()
        except trio.BrokenResourceError:
            pass
        if order.error is not None:
            raise order.error
        return order.left

    async def run(self, components: trio.Nursery) -> None:
        """Until the node leaves. `components` is where the new ones live."""
        with self._taken:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_when_leaving, nursery.cancel_scope)
                async for order in self._taken:
                    try:
                        await self._take(order, components)
                    finally:
                        order.done.set()

    async def _end_when_leaving(self, scope: trio.CancelScope) -> None:
        await self._surfaces.leaving.wait()
        scope.cancel()

    async def _take(self, order: _Order, components: trio.Nursery) -> None:
        try:
            order.left = await self._apply(order, components)
            order.error = None
        except Exception as raised:  # the boundary of a reload: whatever it was, the node goes on as it was
            error = unwrap(raised)
            if isinstance(error, MeshError):
                order.error = error
                return
            _log.exception("the resources could not be reloaded", exc_info=error)
            order.error = MeshError(f"the resources could not be reloaded: {error}")

    async def _apply(self, order: _Order, components: trio.Nursery) -> Sequence[str]:
        parts = self._parts
        plan = make_plan(self._options, order.resources, order.registry or self._registry, self._around)
        if plan.configuration != self._configuration:
            self._configuration = plan.configuration
            _log.warning("the Configuration has changed; it is read at the start only: start the node again")
        for note in plan.notes:
            if note not in parts.plan.notes:
                _log.info("%s", note)
        opening = _Opening(parts.plan.host, parts.opened)
        try:
            await self._open(plan, opening, components)
            build_tables(opening.result, plan.policies, parts.plan.configuration, self._options)
        except BaseException:
            with trio.CancelScope(shield=True):  # bounded: each close is
                for one in reversed(opening.fresh):
                    await parts.plan.host.close(one)
            raise
        gone = self._switch(plan, opening)
        patience = self._options.graceful_shutdown
        calls = [call for call in self._surfaces.live if _may_use_components(call)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._surfaces.inbound.settled, patience)
            nursery.start_soon(self._surfaces.configuration.settled, patience)
        if gone:
            components.start_soon(self._retire, gone, calls)
        return opening.failures

    async def _open(self, plan: Plan, opening: _Opening, components: trio.Nursery) -> None:
        for planned in plan.components:
            if opening.keeps(planned):
                continue
            loop = await self._loop_for(planned, components)
            await opening.open(planned, components, loop)

    async def _loop_for(self, planned: Planned, components: trio.Nursery) -> LateLoop | None:
        """None where the component needs no asyncio loop, or where the node has had one from its start."""
        if not planned.driver.needs_asyncio or self._parts.plan.needs_asyncio:
            return None
        if self._loop is None:
            self._loop = await components.start(hold_loop)
        return self._loop

    def _switch(self, plan: Plan, opening: _Opening) -> list[Opened]:
        """All that happens at once, without a pause in it. Returns the components that have gone."""
        parts, surfaces = self._parts, self._surfaces
        gone = [one for one in parts.opened if one not in opening.result]
        changed = {one.planned.component.name for one in (*gone, *opening.fresh)}
        changed |= parts.plan.policies.adopt(plan.policies)
        tables = build_tables(opening.result, parts.plan.policies, parts.plan.configuration, self._options)
        surfaces.tables.adopt(tables, changed)
        parts.opened[:] = opening.result
        parts.resiliencies[:] = plan.resiliencies
        surfaces.inbound.renew(plan.subscriptions)
        surfaces.configuration.renew()
        _log.info("Resources reloaded; components changed: %s", ", ".join(sorted(changed)) or "none")
        return gone

    async def _retire(self, gone: Sequence[Opened], calls: Sequence[Call]) -> None:
        """Close what has gone once the requests that may still use it have ended."""
        for call in calls:
            await self._surfaces.live.ended(call)
        for one in reversed(gone):
            await self._parts.plan.host.close(one)


@final
class _Opening:
    """Opens what is new or changed, beside what is there."""

    def __init__(self, host: ComponentHost, current: Sequence[Opened]) -> None:
        self._host = host
        self._current = {one.planned.component.name: one for one in current}
        self.result: list[Opened] = []
        self.fresh: list[Opened] = []
        self.failures: list[str] = []

    def keeps(self, planned: Planned) -> bool:
        """Whether it is as it was and goes on; one that failed before is tried again, and one whose secrets
        may have changed is opened anew.
        """
        old = self._current.get(planned.component.name)
        if old is None or old.instance is None or planned.component != old.planned.component:
            return False
        if planned.component.auth_secret_store in secret_stores(self.fresh):
            return not any(item.secret_key_ref for item in planned.component.metadata) and self._keep(old)
        return self._keep(old)

    def _keep(self, old: Opened) -> bool:
        self.result.append(old)
        return True

    async def open(self, planned: Planned, nursery: trio.Nursery, loop: LateLoop | None) -> None:
        old = self._current.get(planned.component.name)
        try:
            new = await self._host.open_one(nursery, planned, secret_stores(self.result), loop)
            failure = new.error
        except MeshError as error:
            new, failure = None, str(error)
        if new is not None and (new.instance is not None or old is None or old.instance is None):
            self.result.append(new)
            self.fresh.append(new)
            return
        name = planned.component.name
        if old is not None and old.instance is not None:
            self._keep(old)
            self.failures.append(f"component {name} stays as it was: {failure}")
        else:
            self.failures.append(f"component {name} is not there: {failure}")
        _log.error("%s", self.failures[-1])


def _may_use_components(call: Call) -> bool:
    method = call.method
    return method.startswith(_INBOUND) or (method.startswith(_DAPR) and method not in _LONG)
