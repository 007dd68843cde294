"""The composition root: configuration in, running node out. The only module that knows every other.

Start: internal server, components, name resolution, API server, application, ready; then subscriptions and
input bindings. Stop: NOT_SERVING, out of the name registry, no new events and connections; what is in flight
finishes within the grace period, events first, then requests of other nodes, because the application may need
its API for them; what is left is cancelled, and a last log
line says what happened to whom. `meshnode.process` opens a process's node, `meshnode.testing` the mesh's.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import final

import trio

from meshnode import __version__
from meshnode.app import watch_application
from meshnode.asyncioloop import asyncio_loop
from meshnode.cluster import Directory, open_peers
from meshnode.config import Resources
from meshnode.config.nodeoptions import NodeOptions, NodeStarted
from meshnode.interfaces import Instance, NameResolver
from meshnode.planning import Plan, make_plan
from meshnode.registry import Registry
from meshnode.reload import Reloader
from meshnode.surfaces import Parts, Surfaces, build_surfaces
from meshnode.surroundings import (
    Surroundings,
    api_listeners,
    join_address,
    limits_of,
    open_app,
)
from meshnode.telemetry.logs import LogTail

__all__ = ["Node", "Surroundings", "open_node"]

_log = logging.getLogger("meshnode.node")


@final
class Node:
    """A running node: `started` says where it listens, `stop` asks for its end, `shut_down` drains it."""

    def __init__(
        self,
        options: NodeOptions,
        parts: Parts,
        surfaces: Surfaces,
        started: NodeStarted,
        tail: LogTail,
        reloader: Reloader,
    ) -> None:
        self.options = options
        self.started = started
        self.policies = parts.plan.policies
        self.hot_reload = bool(parts.plan.features)
        self.app = parts.app
        self.live = surfaces.live
        self.stopping = surfaces.stopping
        self._health = surfaces.health
        self._servers = (surfaces.internal, surfaces.api)
        self._tail = tail
        self._leaving = surfaces.leaving
        self._inbound = surfaces.inbound
        self._patience = trio.CancelScope()
        self._reloader = reloader

    def stop(self) -> None:
        """Ask for the graceful shutdown that SIGTERM asks for."""
        self.stopping.set()

    def hurry(self) -> None:
        """Wait no longer for requests in flight: `shut_down` goes on to its ledger."""
        self.stopping.set()
        self._patience.cancel()

    async def reload(self, resources: Resources, registry: Registry | None = None) -> Sequence[str]:
        """Go by these resources from now on, with drivers of `registry`, by default those of the start.
        Returns a sentence for each component that stays as it was because it could not be opened.

        Raises `ConfigError` for resources that cannot be used: then nothing has changed.
        """
        return await self._reloader.reload(resources, registry)

    async def leave(self) -> None:
        """Take no more events and be found no more, as at the beginning of a shutdown, and go on serving;
        returns when the deliveries under way have ended.
        """
        _log.info("Taking no more events; waiting for those under way")
        self._leaving.set()
        await self._inbound.ended.wait()

    async def shut_down(self) -> None:
        """Drain within the grace period and log the ledger. What is left then is for the caller to cancel."""
        waiting = len(self.live)
        with self._patience:
            await self._keep_serving()
            self._leaving.set()
            self._health.end_watches()
            self._tail.end_watches()
            waiting, grace = len(self.live), self.options.graceful_shutdown
            _log.info("Shutting down: %d requests in flight, %g s grace", waiting, grace)
            self._patience.deadline = trio.current_time() + grace
            # Deliveries first: while it works on an event the application may need its API.
            await self._inbound.ended.wait()
            for server in self._servers:
                await server.drain()
        left = list(self.live)
        served, drained = self.live.total - len(left), max(0, waiting - len(left))
        names = ", ".join(sorted({call.method for call in left}))
        text = "Shutdown complete: %d requests served, %d of them while draining, %d cancelled%s"
        _log.info(text, served, drained, len(left), f" ({names})" if names else "")

    async def _keep_serving(self) -> None:
        """`--dapr-block-shutdown-duration`: go on until it is over or the application reports unhealthy."""
        seconds = self.options.block_shutdown
        if seconds is None:
            return
        _log.info("Blocking shutdown for %g s or until the app reports unhealthy", seconds)
        with trio.move_on_after(seconds):
            await self.app.wait_unhealthy()


@asynccontextmanager
async def open_node(
    options: NodeOptions,
    resources: Resources,
    *,
    registry: Registry | None = None,
    surroundings: Surroundings | None = None,
    on_app_ready: Callable[[], None] = lambda: None,
) -> AsyncIterator[Node]:
    """The node, serving, for as long as the context is open.

    Leaving it cancels what is left; `Node.shut_down` first drains. `on_app_ready` is called once the
    application can be called, or at once where there is none. Raises `ConfigError` for resources that cannot
    be used, `MeshError` for a component that cannot be reached, OSError for a port that is taken.
    """
    around = surroundings or Surroundings()
    registry = registry or Registry.discover()
    plan = make_plan(options, resources, registry, around)
    async with AsyncExitStack() as stack:
        parts, components = await _open_parts(stack, options, plan, around)
        listeners = await api_listeners(options, around)
        for listener in listeners:
            stack.callback(listener.close)
        started = NodeStarted(
            tuple(one.address for one in listeners), parts.internal_address, tuple(plan.notes)
        )
        surfaces = build_surfaces(options, parts, around, started)
        reloader = Reloader(options, parts, surfaces, registry, around)

        nursery = await stack.enter_async_context(_serving())
        await nursery.start(surfaces.internal.serve, parts.internal_listeners)
        instance = Instance(options.app_id, parts.internal_address, options.namespace)
        await nursery.start(_announced, parts.resolver, instance, surfaces.leaving)
        await nursery.start(surfaces.api.serve, listeners)
        where = (started.grpc_address, started.internal_address)
        _log.info("meshnode %s for %s: API on %s, internal on %s", __version__, options.app_id, *where)
        for note in plan.notes:
            _log.info("%s", note)

        def ready() -> None:
            surfaces.state.ready = True
            surfaces.inbound.app_ready.set()
            surfaces.health.set("", True)
            on_app_ready()

        nursery.start_soon(surfaces.inbound.run)
        nursery.start_soon(reloader.run, components)
        nursery.start_soon(watch_application, parts.app, options.app_health, ready)
        yield Node(options, parts, surfaces, started, around.tail, reloader)


async def _announced(
    resolver: NameResolver,
    instance: Instance,
    leaving: trio.Event,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Other nodes find this one until it leaves, which is before it has gone."""
    async with resolver.announce(instance):
        task_status.started()
        await leaving.wait()


# --- what is opened


async def _open_parts(
    stack: AsyncExitStack, options: NodeOptions, plan: Plan, around: Surroundings
) -> tuple[Parts, trio.Nursery]:
    """With the nursery in which components live."""
    limits = limits_of(options)
    await stack.enter_async_context(asyncio_loop(plan.needs_asyncio))
    internal = await around.listen(join_address(plan.naming.bind_address, options.internal_grpc_port))
    for listener in internal:
        stack.callback(listener.close)
    components = await stack.enter_async_context(plan.host.held())
    opened = await plan.host.open(components, plan.components)
    resolver = await stack.enter_async_context(plan.naming.open(around.wall, around.rng))
    peers = open_peers(Directory(resolver), dial=around.dial, rng=around.rng, limits=limits)
    parts = Parts(
        plan=plan,
        internal_listeners=internal,
        internal_address=plan.naming.announced(internal[0].address),
        opened=opened,
        resolver=resolver,
        peers=await stack.enter_async_context(peers),
        app=await stack.enter_async_context(open_app(options, around, limits)),
        resiliencies=list(plan.resiliencies),
    )
    return parts, components


@asynccontextmanager
async def _serving() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        finally:
            nursery.cancel_scope.cancel()
