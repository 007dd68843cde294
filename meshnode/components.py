"""Opening components: from a Component resource to a running driver, with its record for the metadata and
admin APIs.

Secret stores come first, because the others' `secretKeyRef` may need them. `initTimeout` bounds one opening,
Dapr's built-in initialisation retries repeat it, and `ignoreErrors` lets the node start without the
component.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, final

import trio
from attrs import frozen

from meshnode.config.component import Component
from meshnode.config.secrets import resolve_metadata
from meshnode.errors import ComponentUnavailable, ConfigError, MeshError, Problem
from meshnode.interfaces import Driver, DriverContext, SecretStore
from meshnode.registry import Registry, describe, load_options
from meshnode.resiliency import Policies, run

__all__ = [
    "RESERVED_METADATA",
    "ComponentHost",
    "Loop",
    "Opened",
    "Planned",
    "component_problems",
    "secret_stores",
]

RESERVED_METADATA = frozenset(
    {"keyPrefix", "primaryEncryptionKey", "secondaryEncryptionKey", "actorStateStore"}
    | {"outboxPublishPubsub", "outboxPublishTopic", "outboxPubsub", "outboxInternalTopic"}
    | {"outboxDiscardWhenMissingState", "direction", "route"}
    | {"allowedTopics", "protectedTopics", "publishingScopes", "subscriptionScopes"}
)
"""Metadata names that blocks look at, not drivers. Like all of them they are matched in any case."""

_CANONICAL = {name.lower(): name for name in RESERVED_METADATA}

_CLOSING_SECONDS = 5.0
"""What all components together may take to close."""

_log = logging.getLogger("meshnode.components")


def component_problems(component: Component, registry: Registry, *, lenient: bool) -> Sequence[Problem]:
    """What is wrong with a component's type and metadata, as far as that can be known without its secrets."""
    try:
        driver = registry.driver(component.type, component.version, component.source)
    except ConfigError as error:
        return error.problems
    try:
        load_options(driver.metadata, component, reserved=RESERVED_METADATA, lenient=lenient)
    except ConfigError as error:
        return [problem for problem in error.problems if _known_now(component, driver, problem)]
    return ()


def _known_now(component: Component, driver: Driver[Any], problem: Problem) -> bool:
    """Whether a problem is one already: values behind references are only known when the node starts."""
    referring = {item.name.lower() for item in component.metadata if item.value is None}
    # A driver calls a field by its first name, whichever of its names stands in the resource.
    for row in describe(driver):
        names = {name.lower() for name in (row.name, *row.aliases)}
        referring |= names if names & referring else set()
    field = problem.field.removeprefix("spec.metadata").removeprefix(".").lower()
    return not referring or problem.message.startswith("unknown") or field not in {*referring, ""}


@frozen
class Planned:
    """A component whose type is known: what will be opened."""

    component: Component
    kind: str
    driver: Driver[Any]


class Loop(Protocol):
    """The asyncio loop of a node that was started without one."""

    def enter(self) -> None:
        """Give it to the task that calls this."""
        ...

    def wrap(self, instance: Any) -> Any:
        """A driver's object for callers that do not have the loop."""
        ...


@final
class Running:
    """The life of an open component: it is told to close, and it has closed. Cancelling `scope` ends it."""

    def __init__(self) -> None:
        self.close = trio.Event()
        self.closed = trio.Event()
        self.scope = trio.CancelScope()


@frozen(eq=False)
class Opened:
    """A component after its opening. `instance` is None when it failed and `ignoreErrors` let the node go
    on.
    """

    planned: Planned
    instance: Any
    reserved: Mapping[str, str]
    secret_names: Mapping[str, str]
    """For each reserved metadata name that came from a secret: the secret's name."""
    error: str = ""
    running: Running | None = None


@final
class ComponentHost:
    """Plans and opens the components of one node."""

    def __init__(
        self,
        *,
        registry: Registry,
        policies: Policies,
        app_id: str,
        namespace: str,
        env: Mapping[str, str],
        wall: Callable[[], float],
        rng: random.Random,
        lenient: bool,
    ) -> None:
        self._registry = registry
        self._policies = policies
        self._app_id = app_id
        self._namespace = namespace
        self._env = env
        self._wall = wall
        self._rng = rng
        self._lenient = lenient
        self._running: list[Running] = []

    def plan(self, components: Sequence[Component]) -> list[Planned]:
        """The components that this node loads, secret stores first. Raises `ConfigError`: every problem."""
        planned: list[Planned] = []
        problems: list[Problem] = []
        for component in components:
            found = component_problems(component, self._registry, lenient=self._lenient)
            if found:
                problems.extend(found)
                continue
            driver = self._registry.driver(component.type, component.version, component.source)
            # The kind is the driver's own word: in a resource the type may be written in any case.
            planned.append(Planned(component, driver.type.partition(".")[0], driver))
        if problems:
            raise ConfigError(problems)
        return sorted(planned, key=lambda one: one.kind != "secretstores")

    @asynccontextmanager
    async def held(self) -> AsyncIterator[trio.Nursery]:
        """The nursery in which components live. Leaving closes those that are open, the last one first."""
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING_SECONDS):
                    for one in reversed(tuple(self._running)):
                        one.close.set()
                        await one.closed.wait()
                nursery.cancel_scope.cancel()

    async def open(self, nursery: trio.Nursery, planned: Sequence[Planned]) -> list[Opened]:
        """Open them in order, to live in the nursery of `held`.

        Raises `ConfigError` with all that is written wrongly, `MeshError` for what cannot be reached.
        """
        opened: list[Opened] = []
        problems: list[Problem] = []
        for one in planned:
            try:
                opened.append(await self.open_one(nursery, one, secret_stores(opened)))
            except ConfigError as error:
                problems.extend(error.problems)
        if problems:
            raise ConfigError(problems)
        return opened

    async def open_one(
        self,
        nursery: trio.Nursery,
        one: Planned,
        secrets: Mapping[str, SecretStore],
        loop: Loop | None = None,
    ) -> Opened:
        """One component, with the secret stores its metadata may refer to. Raises as `open` does.

        `loop` is for one that needs asyncio in a node that had none when it began.
        """
        component = one.component
        pairs = await resolve_metadata(
            component, secrets, self._env, app_id=self._app_id, namespace=self._namespace, rng=self._rng
        )
        reserved = {_CANONICAL[name.lower()]: value for name, value in pairs if name.lower() in _CANONICAL}
        options: Any = load_options(
            one.driver.metadata, pairs, component.source, reserved=RESERVED_METADATA, lenient=self._lenient
        )
        log = logging.getLogger(f"meshnode.driver.{component.type}")
        context = DriverContext(
            component.name, self._app_id, self._namespace, log, self._wall, self._rng, self._env
        )
        names = {
            _CANONICAL[item.name.lower()]: item.secret_key_ref.name
            for item in component.metadata
            if item.secret_key_ref is not None and item.name.lower() in _CANONICAL
        }

        async def attempt() -> Opened:
            running = Running()
            instance = await nursery.start(self._run, one, options, context, running, loop)
            if loop is not None:
                instance = loop.wrap(instance)
            return Opened(one, instance, reserved, names, running=running)

        try:
            opened = await run(self._policies.built_in("DaprBuiltInInitializationRetries"), attempt)
        except Exception as error:
            what = f"{component.name} ({component.type}/{component.version})"
            message = f"error initializing component {what}: {_words(error)}"
            if not component.ignore_errors:
                if isinstance(error, ConfigError):
                    raise  # the driver found what is written in the resource to be wrong
                raise ComponentUnavailable(message) from error
            _log.error("%s; going on without it, as ignoreErrors asks", message)
            return Opened(one, None, reserved, names, message)
        _log.info("Component loaded: %s (%s/%s)", component.name, component.type, component.version)
        return opened

    async def close(self, one: Opened) -> None:
        """Close one component that nothing uses any more; what takes too long is cancelled."""
        if one.running is None:
            return
        one.running.close.set()
        with trio.move_on_after(_CLOSING_SECONDS):
            await one.running.closed.wait()
        one.running.scope.cancel()
        await one.running.closed.wait()
        component = one.planned.component
        _log.info("Component closed: %s (%s/%s)", component.name, component.type, component.version)

    async def _run(
        self,
        one: Planned,
        options: Any,
        context: DriverContext,
        running: Running,
        loop: Loop | None,
        *,
        task_status: trio.TaskStatus[Any],
    ) -> None:
        """The task that holds a driver open. The deadline of its scope bounds only the opening: a scope left
        before what was opened in it would be wrong.
        """
        component = one.component
        scope, opened = running.scope, False
        scope.deadline = trio.current_time() + component.init_timeout
        if loop is not None:
            loop.enter()
        try:
            with scope:
                async with one.driver.open(options, context) as instance:
                    scope.deadline = math.inf
                    opened = True
                    self._running.append(running)
                    task_status.started(instance)
                    await running.close.wait()
            if not opened:
                raise ComponentUnavailable(
                    f"init timeout for component {component.name} exceeded after {component.init_timeout:g}s"
                )
        except Exception as error:
            if not opened:
                raise
            # What a driver does in the background must not take the node down; its calls report their errors.
            _log.error(
                "Component %s (%s) failed while running: %s",
                component.name,
                component.type,
                error,
                exc_info=error,
            )
        finally:
            if opened:
                self._running.remove(running)
            running.closed.set()


def secret_stores(opened: Sequence[Opened]) -> dict[str, SecretStore]:
    """Those among the components that are open, by name."""
    return {
        one.planned.component.name: one.instance
        for one in opened
        if one.planned.kind == "secretstores" and one.instance is not None
    }


def _words(error: Exception) -> str:
    """A driver's own errors are sentences; any other one needs its type to mean something."""
    if isinstance(error, MeshError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
