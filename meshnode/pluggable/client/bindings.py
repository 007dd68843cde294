"""Bindings in another process. Each direction is a service of its own and initialised for itself; which of
them a component uses, its services and its `direction` say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, final

import trio
from attrs import frozen

from meshnode.errors import (
    BindingError,
    ComponentError,
    ComponentUnavailable,
    ConfigError,
    InvalidArgument,
    Problem,
)
from meshnode.interfaces import (
    BindingEvent,
    BindingRequest,
    BindingResult,
    DriverContext,
    Outcome,
    Receive,
    open_deliveries,
)
from meshnode.pluggable.client.connection import Connection, Session, kept
from meshnode.pluggable.client.errors import error_of, translated
from meshnode.pluggable.client.initialising import Properties, initialise
from meshnode.pluggable.client.pulling import DEFAULT_LIMIT, Pull, opened
from meshnode.pluggable.names import BINDING_IN, BINDING_OUT
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.components import v1 as components

__all__ = ["PluggableBinding", "PluggableInput", "PluggableOutput", "open_binding"]

_READ = f"/{BINDING_IN}/Read"


@final
class PluggableOutput:
    """An `OutputBinding`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.operations: Sequence[str] = ()

    async def invoke(self, request: BindingRequest) -> BindingResult:
        message = components.InvokeRequest(
            data=request.data, metadata=dict(request.metadata), operation=request.operation
        )
        try:
            reply = await self.connection.stub(components.OutputBindingStub).invoke(message)
        except GRPCError as error:
            if error.status is Status.INVALID_ARGUMENT:
                raise InvalidArgument(error.message or error.status.name) from error
            raise error_of(error, BindingError) from error
        return BindingResult(reply.data, reply.metadata)

    async def begin(self, session: Session, properties: Mapping[str, str]) -> None:
        request, reply = components.OutputBindingInitRequest, components.OutputBindingInitResponse
        await initialise(session, BINDING_OUT, request, reply, properties)
        with translated(ComponentError):
            stub = session.stub(components.OutputBindingStub)
            named = await stub.list_operations(components.ListOperationsRequest())
        self.operations = tuple(named.operations)


@final
class PluggableInput:
    """An `InputBinding`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._attentive = False

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        types = (components.ReadRequest, components.ReadResponse)
        async with opened(self.connection.session, _READ, *types, BindingError) as pull:
            await pull.begin(None, self._attentive, self._ping)
            async with open_deliveries(limit=DEFAULT_LIMIT, stop=stop) as deliveries:
                task_status.started()

                def start(message: Any) -> None:
                    deliveries.start(partial(_handle, pull, message, receive))

                await pull.messages(deliveries, stop, start)

    async def begin(self, session: Session, properties: Mapping[str, str]) -> None:
        request, reply = components.InputBindingInitRequest, components.InputBindingInitResponse
        self._attentive = await initialise(session, BINDING_IN, request, reply, properties)

    async def _ping(self) -> None:
        with translated(ComponentUnavailable):
            await self.connection.stub(components.InputBindingStub).ping(components.PingRequest())


@final
@frozen
class PluggableBinding:
    """Both directions of one component."""

    input: PluggableInput
    output: PluggableOutput

    @property
    def operations(self) -> Sequence[str]:
        return self.output.operations

    async def invoke(self, request: BindingRequest) -> BindingResult:
        return await self.output.invoke(request)

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        await self.input.read(receive, stop, task_status=task_status)


@asynccontextmanager
async def open_binding(
    path: Path, services: frozenset[str], properties: Properties, context: DriverContext
) -> AsyncIterator[PluggableInput | PluggableOutput | PluggableBinding]:
    used = _used(services, properties)
    connection = Connection(path, context)
    reads, writes = PluggableInput(connection), PluggableOutput(connection)

    async def begin(session: Session) -> None:
        if BINDING_IN in used:
            await reads.begin(session, properties.passed_on)
        if BINDING_OUT in used:
            await writes.begin(session, properties.passed_on)

    async with kept(connection, begin):
        if len(used) == 2:
            yield PluggableBinding(reads, writes)
        else:
            yield reads if BINDING_IN in used else writes


def _used(services: frozenset[str], properties: Properties) -> frozenset[str]:
    """Raises `ConfigError` for a direction that the component does not serve."""
    there = services & {BINDING_IN, BINDING_OUT}
    words = next((value for name, value in properties.given.items() if name.lower() == "direction"), "")
    wanted = {word.strip().lower() for word in words.split(",")} - {""}
    if not wanted:
        return there
    named = {"input": BINDING_IN, "output": BINDING_OUT}
    used = there & {named[word] for word in wanted if word in named}
    if not used:
        served = " and ".join(word for word, service in named.items() if service in there)
        raise ConfigError([Problem(f"the component serves {served} only", field="direction")])
    return used


async def _handle(pull: Pull, message: components.ReadResponse, receive: Receive) -> None:
    outcome = await receive(BindingEvent(message.data, message.metadata))
    answer = components.ReadRequest(message_id=message.message_id)
    if outcome is not Outcome.ACK:
        answer.response_error = components.AckResponseError(message="the event was not taken")
    await pull.acknowledge(answer)
