"""The composition root: configuration in, running node out. The only module that knows every other.

Start: internal server, components, name resolution, API server, application, ready. Stop, the other way
round: no new connections, NOT_SERVING, requests in flight finish within the grace period, what is left is
cancelled, and a last log line says what happened to whom. `run_node` is a process's node with its logs and
signals; `open_node` is the same node for whoever brings the surroundings: the in-process mesh of
`meshnode.testing`.
"""

from __future__ import annotations

import logging
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, final

import trio
from attrs import evolve, field, frozen

from meshnode import __version__
from meshnode.api.admin import AdminApi, NodeFacts
from meshnode.api.dapr import DaprApi
from meshnode.api.details import encode_details
from meshnode.api.health import Health
from meshnode.api.internal import InternalApi
from meshnode.api.reflection import Reflection
from meshnode.api.service import Gate, guarded
from meshnode.app import AppChannel, watch_application
from meshnode.blocks.call import LiveCalls
from meshnode.blocks.invocation import Invocation
from meshnode.blocks.metadata import ComponentRecord, NodeMetadata
from meshnode.blocks.proxy import Proxy
from meshnode.blocks.state import StateBlock
from meshnode.blocks.statequery import StateQuery
from meshnode.blocks.stores import build_stores
from meshnode.cluster import Directory, open_peers
from meshnode.components import ComponentHost, Opened
from meshnode.config import Configuration, Resources, load_resources
from meshnode.config.configuration import merged
from meshnode.config.nodeoptions import NodeOptions, NodeStarted
from meshnode.defaults import Naming, embedded_store, name_resolution, refuse_http_endpoints
from meshnode.interfaces import Instance
from meshnode.registry import Registry
from meshnode.resiliency import Policies
from meshnode.security.tokens import TokenCheck
from meshnode.telemetry.logs import LogTail, add_stream, configure_logging
from meshnode.transport import AnyListener, Backoff, Limits, Server, open_channel, open_listeners
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.meshnode.admin import v1 as admin

__all__ = ["Node", "Surroundings", "open_node", "run_node"]

_log = logging.getLogger("meshnode.node")
_SERVICES = (
    "dapr.proto.runtime.v1.Dapr",
    "dapr.proto.internals.v1.ServiceInvocation",
    "meshnode.admin.v1.Admin",
)
Dial = Callable[[str], Awaitable[trio.abc.Stream]]


@frozen
class Surroundings:
    """What a node takes from outside itself, so that a test can bring its own: network, clock, chance."""

    listen: Callable[[str], Awaitable[Sequence[AnyListener]]] = open_listeners
    dial: Dial | None = None
    naming: Naming | None = None
    """Name resolution that is already chosen; None leaves it to the Configuration and the defaults."""
    wall: Callable[[], float] = time.time
    rng: random.Random = field(factory=random.Random)
    tail: LogTail = field(factory=LogTail)


@final
class Node:
    """A running node. `started` says where it listens; `stop` begins its end from anywhere, `stopping` is
    set by then.
    """

    def __init__(
        self,
        *,
        options: NodeOptions,
        started: NodeStarted,
        health: Health,
        live: LiveCalls,
        policies: Policies,
        servers: Sequence[Server],
        app: AppChannel,
        tail: LogTail,
        stopping: trio.Event,
    ) -> None:
        self.options = options
        self.started = started
        self.policies = policies
        self.live = live
        self.app = app
        self.stopping = stopping
        self._health = health
        self._servers = servers
        self._tail = tail

    def stop(self) -> None:
        """Ask for the graceful shutdown that SIGTERM asks for."""
        self.stopping.set()

    async def shut_down(self) -> None:
        """Drain within the grace period and log the ledger. What is left when it returns is for the caller
        to cancel.
        """
        await self._keep_serving()
        self._health.end_watches()
        self._tail.end_watches()
        waiting = len(self.live)
        _log.info("Shutting down: %d requests in flight, %g s grace", waiting, self.options.graceful_shutdown)
        with trio.move_on_after(self.options.graceful_shutdown):
            async with trio.open_nursery() as nursery:
                for server in self._servers:
                    nursery.start_soon(server.drain)
        left = list(self.live)
        names = ", ".join(sorted({call.method for call in left}))
        _log.info(
            "Shutdown complete: %d requests served, %d of them while draining, %d cancelled%s",
            self.live.total - len(left), waiting - min(waiting, len(left)), len(left), f" ({names})" if names else "",
        )  # fmt: skip

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
    """The node, serving, for as long as the context is open. Leaving it cancels what is left;
    `Node.shut_down` first drains.

    Raises `ConfigError` for resources that cannot be used, `MeshError` for a component that cannot be
    reached, OSError for a port that is taken.
    """
    around = surroundings or Surroundings()
    registry = registry or Registry.discover()
    resources = resources.for_app(options.app_id, options.namespace)
    refuse_http_endpoints(resources)
    configuration = merged(resources.configurations)
    policies = Policies.build(resources.resiliencies, options.app_id, options.namespace, rng=around.rng)
    naming = around.naming or name_resolution(resources, options, registry)
    notes: list[str] = []
    components = list(resources.components) or embedded_store(options, notes)
    host = ComponentHost(
        registry=registry, policies=policies, app_id=options.app_id, namespace=options.namespace,
        env=options.env, wall=around.wall, rng=around.rng, lenient=options.lenient,
    )  # fmt: skip
    planned = host.plan(components)
    limits = _limits(options)
    stopping = trio.Event()
    async with AsyncExitStack() as stack:
        if naming.driver.needs_asyncio or any(one.driver.needs_asyncio for one in planned):
            await stack.enter_async_context(_asyncio_loop())
        internal_listeners = await around.listen(_join(naming.bind_address, options.internal_grpc_port))
        internal_address = naming.announced(internal_listeners[0].address)
        opened = await stack.enter_async_context(host.opened(planned))
        resolver = await stack.enter_async_context(naming.open(around.wall, around.rng))
        peers = await stack.enter_async_context(
            open_peers(Directory(resolver), dial=around.dial, rng=around.rng, limits=limits)
        )
        app = await stack.enter_async_context(_open_app(options, around, limits))

        live, health = LiveCalls(), Health()
        common: dict[str, Any] = {
            "app_id": options.app_id, "namespace": options.namespace, "app": app, "peers": peers, "policies": policies, "rng": around.rng,
        }  # fmt: skip
        invocation = Invocation(**common, host=naming.host)
        proxy = Proxy(**common)
        state = StateBlock(options.app_id, build_stores(opened, policies, options.app_id, options.namespace))
        metadata = _metadata(options, resources, opened, stopping.set)
        gate = Gate(live, TokenCheck(options.api_token or ""), api_logging=_api_logging(options, configuration))
        inner_gate = Gate(live, TokenCheck(""))

        dapr = DaprApi(
            invocation=invocation, state=state, query=StateQuery(state), metadata=metadata, gate=gate
        )
        internal = InternalApi(invocation, inner_gate)
        api_listeners = await _api_listeners(options, around)
        started = NodeStarted(tuple(one.address for one in api_listeners), internal_address, tuple(notes))
        node_state = _NodeState(stopping)
        facts = NodeFacts(
            options.app_id, options.namespace, started.grpc_address, internal_address, node_state,
            lambda: sum(server.connections for server in servers), around.wall(), options.app_health is not
            None,
        )  # fmt: skip
        admin_api = AdminApi(
            facts=facts, metadata=metadata, app=app, policies=policies, live=live, tail=around.tail, gate=gate
        )
        api_handlers = [dapr.handlers(), admin_api.handlers(), health.handlers()]
        api_server = Server(
            [*api_handlers, Reflection(api_handlers).handlers()],
            fallback=guarded(proxy.from_application, gate), limits=limits, encode_details=encode_details,
        )  # fmt: skip
        internal_server = Server(
            [internal.handlers(), health.handlers()],
            fallback=guarded(proxy.from_peer, inner_gate), limits=limits, encode_details=encode_details,
        )  # fmt: skip
        servers = (api_server, internal_server)
        for service in _SERVICES:
            health.set(service, True)

        nursery = await stack.enter_async_context(_serving())
        await nursery.start(internal_server.serve, internal_listeners)
        await stack.enter_async_context(
            resolver.announce(Instance(options.app_id, internal_address, options.namespace))
        )
        await nursery.start(api_server.serve, api_listeners)
        _log.info(
            "meshnode %s for %s: API on %s, internal on %s",
            __version__,
            options.app_id,
            started.grpc_address,
            internal_address,
        )
        for note in notes:
            _log.info("%s", note)

        def ready() -> None:
            node_state.ready = True
            health.set("", True)
            on_app_ready()

        nursery.start_soon(watch_application, app, options.app_health, ready)
        yield Node(
            options=options, started=started, health=health, live=live, policies=policies, servers=servers,
            app=app, tail=around.tail, stopping=stopping,
        )  # fmt: skip


@asynccontextmanager
async def _serving() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        finally:
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _asyncio_loop() -> AsyncIterator[None]:
    # Imported here: a node whose drivers speak trio never pays for asyncio.
    import trio_asyncio

    async with trio_asyncio.open_loop():
        yield


@asynccontextmanager
async def _open_app(options: NodeOptions, around: Surroundings, limits: Limits) -> AsyncIterator[AppChannel]:
    if options.app_port is None:
        yield AppChannel(None)
        return
    address = _join(options.app_channel_address, options.app_port)
    target: Any = address if around.dial is None else partial(around.dial, address)
    async with open_channel(
        target, ssl=_unverified_tls() if options.app_tls else None, authority=address, limits=limits
    ) as channel:
        yield AppChannel(
            channel, address=address, token=options.app_api_token, max_concurrency=options.app_max_concurrency
        )


def _unverified_tls() -> Any:
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@final
class _NodeState:
    """The state the admin API reports."""

    def __init__(self, stopping: trio.Event) -> None:
        self.ready = False
        self._stopping = stopping

    def __call__(self) -> admin.NodeState:
        if self._stopping.is_set():
            return admin.NodeState.DRAINING
        return admin.NodeState.READY if self.ready else admin.NodeState.STARTING


async def _api_listeners(options: NodeOptions, around: Surroundings) -> list[AnyListener]:
    if options.unix_domain_socket is not None:
        path = options.unix_domain_socket / f"dapr-{options.app_id}-grpc.socket"
        return list(await around.listen(f"unix:{path}"))
    # Loopback by default, as Dapr's injector sets it in a pod: the API is for the application beside the
    # node.
    addresses = options.listen_addresses or ("127.0.0.1",)
    found: list[AnyListener] = []
    port = options.grpc_port
    for address in addresses:
        found.extend(await around.listen(_join(address, port)))
        port = port or int(found[0].address.rpartition(":")[2])
    return found


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _limits(options: NodeOptions) -> Limits:
    limits = Limits() if options.max_body_size is None else Limits(message_size=options.max_body_size)
    if options.max_body_size is None:
        limits = evolve(limits, message_size=(1 << 32) - 1)
    if options.max_header_size is not None:
        limits = evolve(limits, header_list_size=options.max_header_size)
    return limits


def _api_logging(options: NodeOptions, configuration: Configuration) -> bool:
    if options.api_logging is not None:
        return options.api_logging
    return configuration.api_logging


def _metadata(
    options: NodeOptions, resources: Resources, opened: Sequence[Opened], shutdown: Callable[[], None]
) -> NodeMetadata:
    records = []
    for one in opened:
        component = one.planned.component
        features = getattr(one.instance, "features", frozenset())
        records.append(
            ComponentRecord(
                component.name,
                component.type,
                component.version,
                sorted(feature.value for feature in features),
                "failed" if one.instance is None else "ready",
                one.error,
            )  # fmt: skip
        )
    connection = None
    if options.app_port is not None:
        connection = runtime.AppConnectionProperties(
            port=options.app_port, protocol="grpcs" if options.app_tls else "grpc", channel_address=options.app_channel_address,
            max_concurrency=options.app_max_concurrency or 0,
        )  # fmt: skip
        if options.app_health is not None:
            connection.health = runtime.AppConnectionHealthProperties(
                health_probe_interval=f"{options.app_health.interval:g}s",
                health_probe_timeout=f"{options.app_health.timeout * 1000:g}ms",
                health_threshold=options.app_health.threshold,
            )
    return NodeMetadata(
        app_id=options.app_id, components=records, connection=connection,
        resiliencies=[one.name for one in resources.resiliencies], features=(), shutdown=shutdown,
    )  # fmt: skip


async def run_node(
    options: NodeOptions,
    *,
    on_app_ready: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[NodeStarted] = trio.TASK_STATUS_IGNORED,
) -> int:
    """A process's node: logs, signals, resources from files. Returns the exit code once it has shut down."""
    tail = LogTail()
    with _logs(options, tail), trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        resources = load_resources(options.resources_paths, options.config_paths, lenient=options.lenient, env=options.env)
        async with open_node(
            options, resources, surroundings=Surroundings(tail=tail), on_app_ready=on_app_ready
        ) as node:
            task_status.started(node.started)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_on_signal, signals, node, nursery.cancel_scope)
                await node.stopping.wait()
                await node.shut_down()
                nursery.cancel_scope.cancel()
    return 0


async def _stop_on_signal(signals: AsyncIterator[int], node: Node, scope: trio.CancelScope) -> None:
    """The first signal begins the graceful shutdown, the second one ends it at once."""
    async for number in signals:
        if node.stopping.is_set():
            _log.warning("Received %s again: not waiting for requests in flight", signal.Signals(number).name)
            scope.cancel()
            return
        _log.info("Received %s", signal.Signals(number).name)
        node.stop()


@contextmanager
def _logs(options: NodeOptions, tail: LogTail) -> Iterator[None]:
    """This process's logs go to standard output, to the tail, and to `log_file` as well."""
    common = {"as_json": options.log_as_json, "app_id": options.app_id, "instance": socket.gethostname()}
    configure_logging(options.log_level, stream=sys.stdout, **common)
    logging.getLogger("meshnode").addHandler(tail)
    if options.log_file is None:
        yield
        return
    with options.log_file.open("a", encoding="utf-8") as stream:
        add_stream(stream, **common)
        yield
