"""Input bindings whose outputs, states and applications fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen
from trio.testing import MockClock

from meshnode.errors import BindingError
from meshnode.interfaces import (
    BindingEvent,
    BindingRequest,
    BindingResult,
    Driver,
    DriverContext,
    Outcome,
    Receive,
)
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty

PARALLEL = runtime.BindingEventResponseBindingEventConcurrency.PARALLEL
RESILIENCY = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies:
    circuitBreakers:
      simple: {maxRequests: 1, timeout: 30s, trip: consecutiveFailures >= 1}
  targets:
    components:
      target: {outbound: {circuitBreaker: simple}}
"""


@frozen
class Options:
    pass


class Backend:
    """An output that can be down, and an input that offers one event once a second until it is taken."""

    operations = ("create",)

    def __init__(self) -> None:
        self.down = False
        self.result = BindingResult()
        self.outcomes: list[Outcome] = []

    async def invoke(self, request: BindingRequest) -> BindingResult:
        if self.down:
            raise BindingError("the backend said no")
        return self.result

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while not stop.is_set():
            self.outcomes.append(await receive(BindingEvent(b"1")))
            if self.outcomes[-1] is Outcome.ACK:
                await stop.wait()
            with trio.move_on_after(1):
                await stop.wait()


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
async def mesh(backend: Backend) -> AsyncIterator[Mesh]:
    @asynccontextmanager
    async def opened(options: Options, context: DriverContext) -> AsyncIterator[Backend]:
        yield backend

    registry = Registry.discover([Driver("bindings.test", Options, opened)])
    async with open_mesh(1, registry=registry) as mesh:
        yield mesh


def binding(name: str, direction: str = "") -> str:
    metadata = f"{{name: direction, value: {direction}}}" if direction else ""
    return f"""
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name}}}
spec: {{type: bindings.test, version: v1, metadata: [{metadata}]}}
"""


class Application(runtime.AppCallbackBase):
    def __init__(self) -> None:
        self.listed: Callable[[], list[str]] = list
        self.events = 0
        self.response = runtime.BindingEventResponse()

    async def list_input_bindings(self, message: Empty) -> runtime.ListInputBindingsResponse:
        return runtime.ListInputBindingsResponse(bindings=self.listed())

    async def on_binding_event(self, message: runtime.BindingEventRequest) -> runtime.BindingEventResponse:
        self.events += 1
        return self.response


@pytest.mark.parametrize("concurrency", [None, PARALLEL])
async def test_an_output_whose_breaker_is_open_does_not_make_the_event_come_hot(
    mesh: Mesh, backend: Backend, autojump_clock: MockClock, concurrency: Any
) -> None:
    """The inbound policy's pause is for the inbound breaker only; for others the source's own pace holds."""
    app = Application()
    app.response = runtime.BindingEventResponse(to=["target"], data=b"x")
    if concurrency is not None:
        app.response.concurrency = concurrency
    backend.down = True
    resources = binding("source", "input") + binding("target", "output") + RESILIENCY
    await mesh.start("app", app=app, resources=resources)
    await trio.sleep(20.5)
    assert app.events <= 21
    assert set(backend.outcomes) == {Outcome.RETRY}
    backend.down = False
    await trio.sleep(60)
    assert backend.outcomes[-1] is Outcome.ACK


async def test_a_list_of_bindings_that_fails_is_asked_for_again(
    mesh: Mesh, backend: Backend, autojump_clock: MockClock
) -> None:
    app, failures = Application(), 20

    def listed() -> list[str]:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise GRPCError(Status.INTERNAL, "starting up")
        return ["source"]

    app.listed = listed
    await mesh.start("app", app=app, resources=binding("source"))
    await trio.sleep(3600)
    assert backend.outcomes == [Outcome.ACK]


async def test_an_unhealthy_application_does_not_hold_up_a_shutdown(
    mesh: Mesh, backend: Backend, autojump_clock: MockClock
) -> None:
    app = Application()
    node = await mesh.start("app", app=app, resources=binding("source", "input"))
    await trio.sleep(1)
    assert app.events == 1
    node.node.app.set_healthy(False)
    began = trio.current_time()
    await node.stop()
    assert trio.current_time() == began


async def test_an_answer_with_more_metadata_than_headers_hold_arrives(
    mesh: Mesh, backend: Backend, autojump_clock: MockClock
) -> None:
    backend.result = BindingResult(b"done", {f"name-{number}": "value" * 20 for number in range(2000)})
    node = await mesh.start("app", resources=binding("target", "output"))
    request = runtime.InvokeBindingRequest(name="target", operation="create")
    answer = await node.dapr.invoke_binding(request)
    assert (answer.data, len(answer.metadata)) == (b"done", 2000)
