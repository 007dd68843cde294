"""Input and output bindings through real nodes, in the in-process mesh on the virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen
from trio.testing import MockClock

from meshnode.errors import BindingError, ConfigError
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
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty


class Source:
    """Both directions of a binding that the test holds in its hand."""

    operations = ("create", "get")

    def __init__(self) -> None:
        self.requests: list[BindingRequest] = []
        self.outcomes: list[Outcome | None] = []
        self.reading = trio.Event()
        self.pending: list[BindingEvent] = []
        self.failures = 0

    async def invoke(self, request: BindingRequest) -> BindingResult:
        self.requests.append(request)
        if self.failures:
            self.failures -= 1
            raise BindingError("the backend said no")
        return BindingResult(b"done", {"kind": "test"})

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        self.reading.set()
        for event in self.pending:
            outcome: Outcome | None = None
            try:
                outcome = await receive(event)
            finally:
                self.outcomes.append(outcome)
        await stop.wait()


@frozen
class Options:
    pass


class Sources:
    """A driver whose components are looked up by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Source] = {}

    def __getitem__(self, name: str) -> Source:
        return self.by_name.setdefault(name, Source())

    @property
    def driver(self) -> Driver[Source]:
        @asynccontextmanager
        async def opened(options: Options, context: DriverContext) -> AsyncIterator[Source]:
            yield self[context.component]

        return Driver("bindings.test", Options, opened)


@pytest.fixture
def sources() -> Sources:
    return Sources()


@pytest.fixture
async def mesh(sources: Sources) -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([sources.driver])) as mesh:
        yield mesh


def binding(name: str = "source", metadata: str = "") -> str:
    return f"""
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name}}}
spec: {{type: bindings.test, version: v1, metadata: [{metadata}]}}
"""


STORE = """
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.in-memory, version: v1}
"""
RESILIENCY = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies:
    retries:
      three: {policy: constant, duration: 1s, maxRetries: 3}
    circuitBreakers:
      simple: {maxRequests: 1, timeout: 30s, trip: consecutiveFailures >= 2}
  targets:
    components:
      source: {%s}
"""
INPUT = "{name: direction, value: input}"


class Application(runtime.AppCallbackBase):
    def __init__(self, *bindings: str) -> None:
        self.bindings = list(bindings)
        self.events: list[runtime.BindingEventRequest] = []
        self.answer: Callable[[], Any] = runtime.BindingEventResponse

    async def list_input_bindings(self, message: Empty) -> runtime.ListInputBindingsResponse:
        return runtime.ListInputBindingsResponse(bindings=self.bindings)

    async def on_binding_event(self, message: runtime.BindingEventRequest) -> runtime.BindingEventResponse:
        self.events.append(message)
        answer = self.answer()
        if hasattr(answer, "__await__"):
            answer = await answer
        return answer


async def invoke(node: MeshNode, name: str = "source", operation: str = "create", **fields: Any) -> Any:
    request = runtime.InvokeBindingRequest(name=name, operation=operation, **fields)
    return await node.dapr.invoke_binding(request)


async def refused(call: Any) -> GRPCError:
    with pytest.raises(GRPCError) as caught:
        await call
    return caught.value


async def test_an_operation_reaches_the_backend_and_comes_back(
    mesh: Mesh, sources: Sources, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=binding())
    request = runtime.InvokeBindingRequest(
        name="source", operation="create", data=b"x", metadata={"key": "value"}
    )
    answer = await node.dapr.invoke_binding(request, metadata={"header": "seen", "dapr-api-token": "no"})
    assert (answer.data, answer.metadata) == (b"done", {"kind": "test"})
    (seen,) = sources["source"].requests
    assert (seen.operation, seen.data, seen.metadata["key"], seen.metadata["header"]) == (
        "create", b"x", "value", "seen",
    )  # fmt: skip
    assert "dapr-api-token" not in seen.metadata
    assert seen.metadata["traceparent"].startswith("00-")
    found = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    listed = {one.name: one.capabilities for one in found.registered_components}
    assert listed["source"] == ["INPUT_BINDING", "OUTPUT_BINDING"]


@pytest.mark.parametrize(
    ("name", "operation", "words"),
    [
        ("ghost", "create", "couldn't find output binding ghost"),
        ("source", "", "operation field is missing from request"),
        ("source", "list", "binding source does not support operation list. supported operations:create get"),
    ],
)
async def test_what_cannot_be_invoked_is_internal_as_in_dapr(
    mesh: Mesh, autojump_clock: MockClock, name: str, operation: str, words: str
) -> None:
    node = await mesh.start("app", resources=binding())
    error = await refused(invoke(node, name, operation))
    assert (error.status, error.message) == (
        Status.INTERNAL,
        f"error invoking output binding {name}: {words}",
    )


async def test_the_outbound_policy_holds(mesh: Mesh, sources: Sources, autojump_clock: MockClock) -> None:
    sources["source"].failures = 2
    node = await mesh.start("app", resources=binding() + RESILIENCY % "outbound: {retry: three}")
    assert (await invoke(node)).data == b"done"
    assert len(sources["source"].requests) == 3


async def test_events_reach_an_application_that_listed_the_binding(
    mesh: Mesh, sources: Sources, autojump_clock: MockClock
) -> None:
    sources["source"].pending = [BindingEvent(b"1", {"a": "b"}), BindingEvent(b"2")]
    app = Application("source")
    await mesh.start("app", app=app, resources=binding() + binding("other"))
    await trio.testing.wait_all_tasks_blocked()
    assert [(one.name, one.data, one.metadata) for one in app.events] == [
        ("source", b"1", {"a": "b"}),
        ("source", b"2", {}),
    ]
    assert sources["source"].outcomes == [Outcome.ACK, Outcome.ACK]
    assert not sources["other"].reading.is_set()  # the application did not name it


async def test_direction_input_needs_no_list(mesh: Mesh, sources: Sources, autojump_clock: MockClock) -> None:
    sources["source"].pending = [BindingEvent(b"1")]
    app = Application()
    node = await mesh.start("app", app=app, resources=binding(metadata=INPUT))
    await trio.testing.wait_all_tasks_blocked()
    assert len(app.events) == 1
    assert (await refused(invoke(node))).message.endswith("couldn't find output binding source")


async def test_a_failed_event_is_given_back(mesh: Mesh, sources: Sources, autojump_clock: MockClock) -> None:
    sources["source"].pending = [BindingEvent(b"1")]
    app = Application("source")

    def fail() -> Any:
        raise GRPCError(Status.INTERNAL, "no")

    app.answer = fail
    await mesh.start("app", app=app, resources=binding() + RESILIENCY % "inbound: {retry: three}")
    await trio.sleep(30)
    assert len(app.events) == 4
    assert sources["source"].outcomes == [Outcome.RETRY]


async def test_an_open_breaker_holds_the_event(
    mesh: Mesh, sources: Sources, autojump_clock: MockClock
) -> None:
    sources["source"].pending = [BindingEvent(b"%d" % n) for n in range(3)]
    app = Application("source")
    times: list[float] = []

    def answer() -> Any:
        times.append(trio.current_time())
        if len(times) <= 2:
            raise GRPCError(Status.INTERNAL, "no")
        return runtime.BindingEventResponse()

    app.answer = answer
    await mesh.start("app", app=app, resources=binding() + RESILIENCY % "inbound: {circuitBreaker: simple}")
    await trio.sleep(100)
    assert sources["source"].outcomes == [Outcome.RETRY, Outcome.RETRY, Outcome.ACK]
    assert times[2] - times[1] >= 30


async def test_the_answer_saves_state_and_goes_to_other_bindings(
    mesh: Mesh, sources: Sources, autojump_clock: MockClock
) -> None:
    sources["source"].pending = [BindingEvent(b"1"), BindingEvent(b"2")]
    app = Application("source")
    order = iter([0, 1])

    def answer() -> Any:
        parallel = runtime.BindingEventResponseBindingEventConcurrency(next(order))
        return runtime.BindingEventResponse(
            store_name="statestore",
            states=[common.StateItem(key="k", value=b"v")],
            to=["one", "two"],
            data=b'{"a":1}',
            concurrency=parallel,
        )

    app.answer = answer
    node = await mesh.start("app", app=app, resources=binding() + binding("one") + binding("two") + STORE)
    await trio.testing.wait_all_tasks_blocked()
    assert sources["source"].outcomes == [Outcome.ACK, Outcome.ACK]
    found = await node.dapr.get_state(runtime.GetStateRequest(store_name="statestore", key="k"))
    assert found.data == b"v"
    for name in ("one", "two"):
        assert [one.data for one in sources[name].requests] == [b'{"a":1}'] * 2
        assert {one.operation for one in sources[name].requests} == {"create"}


async def test_an_answer_that_cannot_be_carried_out_brings_the_event_again(
    mesh: Mesh, sources: Sources, autojump_clock: MockClock
) -> None:
    sources["source"].pending = [BindingEvent(b"1")]
    app = Application("source")
    app.answer = lambda: runtime.BindingEventResponse(to=["ghost"], data=b"x")
    await mesh.start("app", app=app, resources=binding())
    await trio.testing.wait_all_tasks_blocked()
    assert sources["source"].outcomes == [Outcome.RETRY]


async def test_shutdown_finishes_the_event_under_way(
    mesh: Mesh, sources: Sources, autojump_clock: MockClock
) -> None:
    sources["source"].pending = [BindingEvent(b"1")]
    app, gate = Application("source"), trio.Event()

    async def wait() -> Any:
        await gate.wait()
        return runtime.BindingEventResponse()

    app.answer = wait
    node = await mesh.start("app", app=app, resources=binding())
    await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.stop)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert sources["source"].outcomes == [Outcome.ACK]


@pytest.mark.parametrize(
    ("direction", "words"), [("inptu", '"inptu" is no direction'), ("input", "has no input")]
)
async def test_a_direction_that_is_none_is_a_mistake(
    mesh: Mesh, autojump_clock: MockClock, direction: str, words: str
) -> None:
    @asynccontextmanager
    async def opened(options: Options, context: DriverContext) -> AsyncIterator[Any]:
        class Output:
            operations = ("create",)

            async def invoke(self, request: BindingRequest) -> BindingResult:
                return BindingResult()

        yield Output()

    registry = Registry.discover([Driver("bindings.test", Options, opened)])
    async with open_mesh(2, registry=registry) as other:
        with pytest.raises(ConfigError, match=words) as caught:
            await other.start("app", resources=binding(metadata=f"{{name: direction, value: {direction}}}"))
    assert caught.value.problems[0].field == "spec.metadata.direction"
    assert caught.value.problems[0].line
