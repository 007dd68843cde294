"""A whole mesh in one trio run: nodes, applications and drivers, joined by in-memory links, on trio's
(virtual) clock, from one seed.

    async with open_mesh(seed=1) as mesh:
        await mesh.start("order-processor", app=OrderProcessor())
        checkout = await mesh.start("checkout", resources=POLICIES)
        mesh.link("checkout", "order-processor").delay(0.2)
        await checkout.dapr.invoke_service(...)

Nodes are the real ones; only their surroundings are the mesh's: links for sockets, an address book for name
resolution, the trio clock for wall time. Under `trio.testing.MockClock(autojump_threshold=0)` a 30-second
breaker takes no time. With one seed trio schedules in one order, links jitter alike and `history` comes out
the same.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, final

import trio
from attrs import evolve, frozen

from meshnode.config import Resources
from meshnode.config.loader import load_text
from meshnode.config.nodeoptions import NodeOptions
from meshnode.defaults import Naming
from meshnode.interfaces import Driver, DriverContext, Instance
from meshnode.node import Node, Surroundings, open_node
from meshnode.registry import Registry
from meshnode.resiliency import unwrap
from meshnode.telemetry.logs import LogTail
from meshnode.testing.links import Link, MemoryListener, Network
from meshnode.transport import Channel, Server, open_channel
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["Event", "Mesh", "MeshNode", "open_mesh"]

EPOCH: Final = 1_700_000_000.0
"""Wall time when the trio clock starts at 0: any fixed moment serves."""

_API, _INTERNAL, _APP = 50001, 50002, 8080
_running: ContextVar[str] = ContextVar("meshnode.testing.running", default="")
"""The instance to which a task belongs: tasks take it over from those that start them."""
_STORE = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.in-memory, version: v1}
"""


@frozen
class Event:
    """One line of a mesh's history: a log record. `at` is seconds since the mesh began, `node` the instance
    whose task logged it, empty for the test's own.
    """

    at: float
    scope: str
    message: str
    node: str = ""


@final
class MeshNode:
    """A node of the mesh and the way to it."""

    def __init__(
        self, name: str, node: Node, channel: Channel, scope: trio.CancelScope, gone: trio.Event
    ) -> None:
        self.name = name
        self.node = node
        self.channel = channel
        self.dapr = runtime.DaprStub(channel)
        self._scope = scope
        self._gone = gone

    async def reload(self, resources: str | Resources) -> Sequence[str]:
        """Have it go by these resources, as a node does whose files have changed. Returns and raises what
        `Node.reload` does.
        """
        return await self.node.reload(_resources(resources, self.name))

    async def stop(self) -> None:
        """End it gracefully, as SIGTERM would: it drains, and returns when it has gone."""
        self.node.stop()
        await self._gone.wait()

    async def kill(self) -> None:
        """End it at once, as SIGKILL would as far as others can see: its connections break."""
        self._scope.cancel()
        await self._gone.wait()


@final
class Mesh:
    """Made by `open_mesh`. Names are app ids; a second instance of one gets its own `instance` name."""

    def __init__(self, seed: int, nursery_start: Any, registry: Registry) -> None:
        self.rng = random.Random(seed)
        self.network = Network(random.Random(self.rng.getrandbits(64)))
        self.history: list[Event] = []
        self._start = nursery_start
        self._registry = registry
        self._book: dict[tuple[str, str], list[str]] = {}
        self._began = trio.current_time()

    def wall(self) -> float:
        """Seconds since 1970, as every node of the mesh reads them."""
        return EPOCH + trio.current_time() - self._began

    def link(self, source: str, to: str) -> Link:
        """The link from one instance to another's internal server: delay, throttle, cut, black-hole or heal
        it.
        """
        return self.network.link(source, f"{to}:{_INTERNAL}")

    def app_link(self, name: str) -> Link:
        """The link from a node to its own application."""
        return self.network.link(name, f"{name}:{_APP}")

    def announce(self, app_id: str, address: str, namespace: str = "default") -> None:
        """Let an address be found under an app id, whatever is there: a peer of the test's own, or nobody any
        more, as in a name registry that lags behind.
        """
        self._book.setdefault((app_id, namespace), []).append(address)

    async def start(
        self,
        app_id: str,
        *,
        app: Any | Sequence[Any] = None,
        resources: str | Resources | None = None,
        instance: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> MeshNode:
        """Start a node, and its application when `app` is given: objects with `__mapping__`, such as
        generated service bases.

        `resources` is YAML text; without any, the node has an in-memory store named `statestore`. `options`
        are fields of `NodeOptions`. Returns when the node is ready. Raises what `open_node` raises.
        """
        name = instance or app_id
        servables = [] if app is None else list(app) if isinstance(app, list | tuple) else [app]
        fields: dict[str, Any] = {
            "app_port": _APP if servables else None,
            "app_channel_address": name,
            "grpc_port": _API,
            "listen_addresses": (name,),
            "internal_grpc_port": _INTERNAL,
        }
        made = evolve(NodeOptions(app_id=app_id, **fields), **(options or {}))
        loaded = _resources(resources, name)
        try:
            node: MeshNode = await self._start(self._run, name, made, loaded, servables)
        except ExceptionGroup as group:
            error = unwrap(group)  # the nurseries it came through are not the caller's
        else:
            return node
        raise error

    async def _run(
        self,
        name: str,
        options: NodeOptions,
        resources: Resources,
        servables: list[Any],
        *,
        task_status: trio.TaskStatus[MeshNode],
    ) -> None:
        gone = trio.Event()
        ready = trio.Event()
        _running.set(name)
        tail = LogTail()
        tail.addFilter(lambda record: _running.get() == name)
        around = Surroundings(
            listen=self._listen, dial=partial(self._dial, name), naming=self._naming(name), wall=self.wall,
            rng=random.Random(self.rng.getrandbits(64)), tail=tail,
        )  # fmt: skip
        try:
            with trio.CancelScope() as scope:
                async with AsyncExitStack() as stack:
                    stack.enter_context(_logging_to(tail))
                    if servables:
                        await stack.enter_async_context(
                            _application(servables, self.network.listen(f"{name}:{_APP}"))
                        )
                    node = await stack.enter_async_context(
                        open_node(
                            options,
                            resources,
                            registry=self._registry,
                            surroundings=around,
                            on_app_ready=ready.set,
                        )
                    )
                    await ready.wait()
                    channel = await stack.enter_async_context(
                        open_channel(partial(self._dial, "", f"{name}:{_API}"), authority=name)
                    )
                    task_status.started(MeshNode(name, node, channel, scope, gone))
                    await node.stopping.wait()
                    await node.shut_down()
        finally:
            gone.set()

    async def _listen(self, address: str) -> list[MemoryListener]:
        return [self.network.listen(address)]

    async def _dial(self, source: str, address: str) -> trio.abc.Stream:
        return await self.network.dial(address, source=source)

    def _naming(self, name: str) -> Naming:
        def context(wall: Any, rng: random.Random) -> DriverContext:
            return DriverContext("mesh", name, wall=wall, rng=rng)

        return Naming(_driver(self._book), None, name, name, context)


def _resources(given: str | Resources | None, name: str) -> Resources:
    loaded = given if isinstance(given, Resources) else load_text(given or "", f"{name}.yaml")
    return loaded if loaded.components else evolve(loaded, components=load_text(_STORE).components)


@final
class _AddressBook:
    """Name resolution inside the mesh: who is announced is found, at once."""

    max_age = 1.0

    def __init__(self, book: dict[tuple[str, str], list[str]]) -> None:
        self._book = book

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        listed = self._book.setdefault((instance.app_id, instance.namespace), [])
        listed.append(instance.address)
        try:
            yield
        finally:
            listed.remove(instance.address)

    async def resolve(self, app_id: str, namespace: str) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return tuple(self._book.get((app_id, namespace), ()))


def _driver(book: dict[tuple[str, str], list[str]]) -> Driver[_AddressBook]:
    @asynccontextmanager
    async def opened(options: None, context: DriverContext) -> AsyncIterator[_AddressBook]:
        yield _AddressBook(book)

    return Driver("nameresolution.mesh", type(None), opened, "The address book of an in-process mesh.")


@asynccontextmanager
async def _application(servables: list[Any], listener: MemoryListener) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        server = Server(servables)
        await nursery.start(server.serve, [listener])
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_mesh(seed: int = 0, *, registry: Registry | None = None) -> AsyncIterator[Mesh]:
    """An empty mesh. Leaving it ends all that runs in it."""
    with _deterministic(seed), _recorded() as record:
        async with trio.open_nursery() as nursery:
            mesh = Mesh(seed, nursery.start, registry or Registry.discover())
            record.into(mesh.history)
            try:
                yield mesh
            finally:
                nursery.cancel_scope.cancel()


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Let trio schedule tasks in an order that only the seed decides: the switch it has for hypothesis."""
    run: Any = trio._core._run
    before, state = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    run._r.seed(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before
        run._r.setstate(state)


@final
class _Recorder(logging.Handler):
    """Turns the nodes' log records into history."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[Event] = []
        self._began = trio.current_time()

    def into(self, events: list[Event]) -> None:
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        at = round(trio.current_time() - self._began, 9)
        self._events.append(Event(at, record.name, record.getMessage(), _running.get()))


@contextmanager
def _recorded() -> Iterator[_Recorder]:
    logger = logging.getLogger("meshnode")
    recorder, level = _Recorder(), logger.level
    logger.setLevel(logging.INFO)
    try:
        with _logging_to(recorder):
            yield recorder
    finally:
        logger.setLevel(level)


@contextmanager
def _logging_to(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger("meshnode")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
