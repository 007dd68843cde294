"""What a node does around the calls it carries: gates, limits, tokens, health, shutdown; in the in-process
mesh, on the virtual clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from google.rpc import error_details_pb2, status_pb2
from support.blobs import SERVICE, Blob, blob_service
from trio.testing import MockClock

from meshnode.api.health import Health
from meshnode.config.nodeoptions import AppHealthOptions
from meshnode.testing.mesh import Mesh, MeshNode
from meshnode.transport import Cardinality, GRPCError, Server, Status, open_channel
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Any as Packed
from meshnode.wire.google.protobuf import Empty
from meshnode.wire.grpc.health import v1 as health
from meshnode.wire.meshnode.admin import v1 as admin

SERVING = health.HealthCheckResponseServingStatus.SERVING
NOT_SERVING = health.HealthCheckResponseServingStatus.NOT_SERVING


class Invoked(runtime.AppCallbackBase):
    """An application that answers OnInvoke with a function."""

    def __init__(self, func: Callable[[common.InvokeRequest], Awaitable[bytes]]) -> None:
        self.func = func

    async def on_invoke(self, message: common.InvokeRequest) -> common.InvokeResponse:
        return common.InvokeResponse(data=Packed(value=await self.func(message)))


class Probed(runtime.AppCallbackHealthCheckBase):
    """An application's health check: `state` is True, False or "hang"."""

    def __init__(self) -> None:
        self.state: object = True
        self.times: list[float] = []

    async def health_check(self, message: Empty) -> runtime.HealthCheckResponse:
        self.times.append(trio.current_time())
        if self.state == "hang":
            await trio.sleep_forever()
        if not self.state:
            raise GRPCError(Status.UNAVAILABLE, "not feeling well")
        return runtime.HealthCheckResponse()


def invocation(app_id: str, method: str = "m") -> runtime.InvokeServiceRequest:
    return runtime.InvokeServiceRequest(id=app_id, message=common.InvokeRequest(method=method, data=Packed()))


def proxied(node: MeshNode, *, to: str, method: str = "Unary", **options: Any) -> Any:
    metadata = {"dapr-app-id": to, **options.pop("metadata", {})}
    cardinality = Cardinality.UNARY_UNARY
    return node.channel.request(SERVICE + method, cardinality, Blob, Blob, metadata=metadata, **options)


async def unary(node: MeshNode, to: str, data: bytes = b"", **options: Any) -> bytes:
    async with proxied(node, to=to, **options) as stream:
        await stream.send_message(Blob(data), end=True)
        return bytes(await stream.recv_message() or b"")


async def echo(stream: Any) -> None:
    await stream.send_message(Blob(await stream.recv_message()))


async def refused(awaitable: Awaitable[Any]) -> GRPCError:
    with pytest.raises(GRPCError) as caught:
        await awaitable
    return caught.value


def messages(mesh: Mesh, node: str) -> list[str]:
    return [event.message for event in mesh.history if event.node == node]


# --- the application's health

CHECKED = {"app_health": AppHealthOptions(interval=5, timeout=0.5, threshold=3)}


async def test_health_probes_open_and_close_the_gate(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Probed()
    node = await mesh.start("app", app=[app, blob_service(unary=echo)], options=CHECKED)
    caller = await mesh.start("caller")
    status = admin.AdminStub(node.channel)
    await trio.sleep(1)
    assert await unary(caller, "app", b"1") == b"1"
    app.state = False
    await trio.sleep(10)  # two failed probes: not yet
    assert await unary(caller, "app", b"2") == b"2"
    assert (await status.get_status(admin.GetStatusRequest())).app_healthy is True
    await trio.sleep(5)
    for error in (await refused(unary(caller, "app")), await refused(unary(node, "app"))):
        assert (error.status, error.message) == (Status.INTERNAL, "app is not in a healthy state")
    error = await refused(caller.dapr.invoke_service(invocation("app")))
    assert error.status is Status.INTERNAL
    assert "app is not in a healthy state" in (error.message or "")
    assert (await status.get_status(admin.GetStatusRequest())).app_healthy is False
    app.state = True
    await trio.sleep(5)
    assert await unary(caller, "app", b"3") == b"3"
    changes = [line for line in messages(mesh, "app") if line.startswith("App entered")]
    assert changes == [
        "App entered healthy status",
        "App entered un-healthy status after 3 failed probes",
        "App entered healthy status",
    ]


async def test_a_probe_without_answer_has_failed_when_its_time_is_over(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    app = Probed()
    app.state = "hang"
    node = await mesh.start("app", app=[app, blob_service(unary=echo)], options=CHECKED)
    await trio.sleep(12)
    assert (await refused(unary(node, "app"))).message == "app is not in a healthy state"
    assert [round(at - app.times[0], 6) for at in app.times] == [0, 5, 10]  # waiting does not stretch it
    app.state = True
    await trio.sleep(5)
    assert await unary(node, "app", b"x") == b"x"


async def test_an_application_without_the_health_check_never_counts_as_healthy(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", app=blob_service(unary=echo), options=CHECKED)
    await trio.sleep(20)
    assert (await refused(unary(node, "app"))).message == "app is not in a healthy state"


async def test_without_probes_nothing_is_known_of_the_application_s_health(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", app=blob_service(unary=echo))
    status = await admin.AdminStub(node.channel).get_status(admin.GetStatusRequest())
    assert status.app_healthy is None
    assert await unary(node, "app", b"x") == b"x"


async def test_a_node_without_an_application_refuses_calls_for_it(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    await mesh.start("app")
    caller = await mesh.start("caller")
    error = await refused(unary(caller, "app"))
    assert (error.status, error.message) == (Status.INTERNAL, "app channel is not initialized")


# --- --app-max-concurrency


class Crowd:
    """Counts who is inside; lets them out when told."""

    def __init__(self) -> None:
        self.inside = self.most = self.total = 0
        self.open = trio.Event()

    async def enter(self) -> None:
        self.inside += 1
        self.total += 1
        self.most = max(self.most, self.inside)
        try:
            await self.open.wait()
        finally:
            self.inside -= 1

    async def invoked(self, message: common.InvokeRequest) -> bytes:
        await self.enter()
        return b""

    async def proxied(self, stream: Any) -> None:
        await stream.recv_message()
        await self.enter()
        await stream.send_message(Blob(b""))


async def test_no_more_calls_than_allowed_reach_the_application(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    crowd = Crowd()
    app = [Invoked(crowd.invoked), blob_service(unary=crowd.proxied)]
    node = await mesh.start("app", app=app, options={"app_max_concurrency": 2})
    caller = await mesh.start("caller")
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(unary, caller, "app")
            nursery.start_soon(unary, node, "app")
            nursery.start_soon(caller.dapr.invoke_service, invocation("app"))
        await trio.sleep(1)
        assert (crowd.inside, crowd.total) == (2, 2)
        crowd.open.set()
    assert (crowd.most, crowd.total) == (2, 9)


async def test_a_place_is_given_back_however_a_call_ends(mesh: Mesh, autojump_clock: MockClock) -> None:
    crowd = Crowd()
    app = [Invoked(crowd.invoked), blob_service(unary=crowd.proxied)]
    await mesh.start("app", app=app, options={"app_max_concurrency": 2})
    caller = await mesh.start("caller")

    async def give_up(call: Callable[[], Awaitable[Any]]) -> None:
        with trio.move_on_after(2):
            await call()

    async def time_out(call: Callable[[], Awaitable[Any]]) -> None:
        assert (await refused(call())).status is Status.DEADLINE_EXCEEDED

    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for _ in range(2):  # half of them never get a place before they go away
                nursery.start_soon(give_up, lambda: unary(caller, "app"))
                nursery.start_soon(give_up, lambda: caller.dapr.invoke_service(invocation("app")))
                nursery.start_soon(time_out, lambda: unary(caller, "app", timeout=1))
                nursery.start_soon(time_out, lambda: caller.dapr.invoke_service(invocation("app"), timeout=1))
        await trio.sleep(1)
        assert crowd.inside == 0
    crowd.open.set()
    with trio.fail_after(1):
        await unary(caller, "app")
    assert crowd.most == 2


# --- tokens


async def test_the_api_asks_for_its_token(mesh: Mesh, autojump_clock: MockClock) -> None:
    await mesh.start("app", app=blob_service(unary=echo))
    node = await mesh.start("caller", options={"api_token": "s3cret"})
    control = admin.AdminStub(node.channel)
    asked: dict[str, Callable[..., Awaitable[Any]]] = {
        "Dapr": lambda **given: node.dapr.get_metadata(runtime.GetMetadataRequest(), **given),
        "not built": lambda **given: node.dapr.invoke_actor(runtime.InvokeActorRequest(), **given),
        "Admin": lambda **given: control.get_status(admin.GetStatusRequest(), **given),
        "proxied": lambda **given: unary(node, "app", **given),
    }
    for ask in asked.values():
        for metadata in ({}, {"dapr-api-token": "wrong"}, {"dapr-api-token": ""}):
            error = await refused(ask(metadata=metadata))
            assert (error.status, error.message) == (Status.UNAUTHENTICATED, "Unauthorized")
        status = status_pb2.Status.FromString(error.details or b"")
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert info.metadata["http.code"] == "401"
    right = {"dapr-api-token": "s3cret"}
    assert (await refused(asked.pop("not built")(metadata=right))).status is Status.UNIMPLEMENTED
    for ask in asked.values():
        await ask(metadata=right)
    check = await health.HealthStub(node.channel).check(health.HealthCheckRequest())
    assert check.status == SERVING  # whoever probes has no token to show


async def test_the_api_token_stays_here_and_the_application_gets_its_own(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    seen: list[Any] = []

    class App(runtime.AppCallbackBase, runtime.AppCallbackHealthCheckBase):
        def __mapping__(self) -> Any:
            return {
                **runtime.AppCallbackBase.__mapping__(self),
                **runtime.AppCallbackHealthCheckBase.__mapping__(self),
                **blob_service(unary=note).__mapping__(),
            }

    async def note(stream: Any) -> None:
        seen.append(stream.metadata.getall("dapr-api-token", []))
        await echo(stream)

    async def noted(stream: Any) -> None:
        seen.append(stream.metadata.getall("dapr-api-token", []))
        await stream.recv_message()
        await stream.send_message(runtime.HealthCheckResponse())

    app = App()
    mapping = app.__mapping__()
    path = "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck"
    mapping[path] = mapping[path]._replace(func=noted)
    path = "/dapr.proto.runtime.v1.AppCallback/OnInvoke"

    async def on_invoke(stream: Any) -> None:
        seen.append(stream.metadata.getall("dapr-api-token", []))
        await stream.recv_message()
        await stream.send_message(common.InvokeResponse())

    mapping[path] = mapping[path]._replace(func=on_invoke)

    class Served:
        def __mapping__(self) -> Any:
            return mapping

    options = {"app_api_token": "for-the-app", **CHECKED}
    callee = await mesh.start("app", app=Served(), options=options)
    caller = await mesh.start("caller", options={"api_token": "s3cret"})
    await trio.sleep(1)
    right = {"dapr-api-token": "s3cret"}
    await unary(caller, "app", metadata=right)
    await caller.dapr.invoke_service(invocation("app"), metadata=right)
    await unary(callee, "app", metadata={"dapr-api-token": "whatever the caller sent"})
    assert seen == [["for-the-app"]] * 4


# --- metadata, shutdown


async def test_a_node_describes_itself(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start(
        "app",
        app=blob_service(unary=echo),
        resources="""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: orders}
spec: {type: state.in-memory, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: careful}
spec: {policies: {}, targets: {}}
""",
        options={
            "app_max_concurrency": 7,
            "app_health": AppHealthOptions(interval=90, timeout=0.25, threshold=4),
        },
    )
    answer = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    assert answer.id == "app"
    [component] = answer.registered_components
    assert (component.name, component.type, component.version) == ("orders", "state.in-memory", "v1")
    assert {"ETAG", "TRANSACTIONAL", "TTL", "QUERY_API"} <= set(component.capabilities)
    assert [one.name for one in answer.resiliencies] == ["careful"]
    connection = answer.app_connection_properties
    assert connection is not None
    assert (connection.port, connection.protocol, connection.max_concurrency) == (8080, "grpc", 7)
    assert connection.channel_address == "app"
    probes = connection.health
    assert probes is not None
    assert (probes.health_probe_interval, probes.health_probe_timeout, probes.health_threshold) == (
        "1m30s",  # a duration as Go prints it
        "250ms",
        4,
    )
    assert answer.runtime_version.startswith("meshnode ")


async def test_an_application_leaves_notes_with_its_node(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app")
    assert (await node.dapr.get_metadata(runtime.GetMetadataRequest())).app_connection_properties is None
    await node.dapr.set_metadata(runtime.SetMetadataRequest(key="color", value="blue"))
    await node.dapr.set_metadata(runtime.SetMetadataRequest(key="color", value="red"))
    answer = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    assert answer.extended_metadata["color"] == "red"
    error = await refused(node.dapr.set_metadata(runtime.SetMetadataRequest(value="x")))
    assert error.status is Status.INVALID_ARGUMENT
    with pytest.raises(GRPCError) as full:
        for number in range(300):
            await node.dapr.set_metadata(runtime.SetMetadataRequest(key=str(number), value=""))
    assert full.value.status is Status.RESOURCE_EXHAUSTED
    await node.dapr.set_metadata(runtime.SetMetadataRequest(key="color", value="still"))


async def test_the_shutdown_call_is_answered_and_ends_the_node(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app")
    await node.dapr.shutdown(runtime.ShutdownRequest())
    with trio.fail_after(10):
        await node.stop()
    assert messages(mesh, "app")[-1].startswith("Shutdown complete: 1 requests served")


async def test_after_the_signal_a_blocked_shutdown_goes_on_serving(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    await mesh.start("app", app=blob_service(unary=echo), options={"block_shutdown": 20.0})
    caller = await mesh.start("caller", options={"block_shutdown": 20.0})
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.stop)
        await trio.sleep(15)
        assert await unary(caller, "app", b"still here") == b"still here"
        state = (await admin.AdminStub(caller.channel).get_status(admin.GetStatusRequest())).state
        assert state == admin.NodeState.DRAINING
    assert trio.current_time() - began == pytest.approx(20, abs=1)


async def test_a_blocked_shutdown_ends_when_the_application_reports_unhealthy(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    app = Probed()
    node = await mesh.start("app", app=app, options={"block_shutdown": 600.0, **CHECKED})
    await trio.sleep(1)
    app.state = False
    began = trio.current_time()
    await node.stop()
    assert trio.current_time() - began == pytest.approx(14, abs=1)  # the third failed probe


async def test_whoever_cannot_wait_gets_the_ledger_at_once(mesh: Mesh, autojump_clock: MockClock) -> None:
    started = trio.Event()

    async def for_ever(stream: Any) -> None:
        started.set()
        await trio.sleep_forever()

    await mesh.start("app", app=blob_service(unary=for_ever))
    caller = await mesh.start("caller", options={"graceful_shutdown": 100.0})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, unary(caller, "app"))
        await started.wait()
        began = trio.current_time()
        nursery.start_soon(caller.stop)
        await trio.sleep(3)
        caller.node.hurry()
    assert trio.current_time() - began == pytest.approx(3, abs=1)
    assert messages(mesh, "caller")[-1] == (
        f"Shutdown complete: 0 requests served, 0 of them while draining, 1 cancelled ({SERVICE}Unary)"
    )


async def test_a_node_that_drains_is_no_longer_found_and_serves_its_application_to_the_end(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    """The application still needs its node's API for the calls of others that it is working on."""
    nodes: dict[str, MeshNode] = {}
    started = trio.Event()

    async def work(stream: Any) -> None:
        data = await stream.recv_message()
        started.set()
        await trio.sleep(2)
        item = common.StateItem(key="k", value=data)
        request = runtime.SaveStateRequest(store_name="statestore", states=[item])
        await nodes["app"].dapr.save_state(request)
        await stream.send_message(Blob(b"saved"))

    nodes["app"] = await mesh.start("app", app=blob_service(unary=work), options={"graceful_shutdown": 30.0})
    caller = await mesh.start("caller")
    answers: list[bytes] = []

    async def call() -> None:
        answers.append(await unary(caller, "app", b"x"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await started.wait()
        nursery.start_soon(nodes["app"].stop)
        await trio.sleep(0.5)
        newcomer = await mesh.start("newcomer")
        mesh.link("newcomer", "app").black_hole()  # had it the address, it would try
        error = await refused(unary(newcomer, "app", timeout=1))
        assert error.status is Status.UNKNOWN
        assert (
            error.message == "no host found with the given ID"
        )  # nobody of that name is registered any more
    assert answers == [b"saved"]


# --- grpc.health.v1


async def test_health_of_the_node_and_of_each_service(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app")
    stub = health.HealthStub(node.channel)
    listed = (await stub.list(health.HealthListRequest())).statuses
    assert set(listed) == {
        "",
        "dapr.proto.runtime.v1.Dapr",
        "dapr.proto.internals.v1.ServiceInvocation",
        "meshnode.admin.v1.Admin",
    }
    for name, response in listed.items():
        assert response.status == SERVING
        assert (await stub.check(health.HealthCheckRequest(service=name))).status == SERVING
    error = await refused(stub.check(health.HealthCheckRequest(service="nobody")))
    assert error.status is Status.NOT_FOUND


async def test_watchers_hear_of_the_end_and_do_not_hold_it_up(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", options={"graceful_shutdown": 60.0})
    stub = health.HealthStub(node.channel)
    seen: dict[str, list[Any]] = {"": [], "meshnode.admin.v1.Admin": [], "nobody": []}

    async def watch(service: str) -> None:
        async with stub.watch(health.HealthCheckRequest(service=service)) as answers:
            async for answer in answers:
                seen[service].append(answer.status)

    async with trio.open_nursery() as nursery:
        for service in seen:
            nursery.start_soon(watch, service)
        await trio.sleep(1)
        began = trio.current_time()
        await node.stop()
    unknown = health.HealthCheckResponseServingStatus.SERVICE_UNKNOWN
    assert seen == {
        "": [SERVING, NOT_SERVING],
        "meshnode.admin.v1.Admin": [SERVING, NOT_SERVING],
        "nobody": [unknown],
    }
    assert trio.current_time() - began < 5
    assert "0 requests in flight" in next(m for m in messages(mesh, "app") if m.startswith("Shutting down"))


async def test_what_becomes_ready_too_late_is_not_served_any_more(autojump_clock: MockClock) -> None:
    node = Health()
    node.set("", True)
    client, server = trio.testing.memory_stream_pair()

    async def dial() -> trio.abc.Stream:
        return client

    async with trio.open_nursery() as nursery, open_channel(dial, authority="x") as channel:
        nursery.start_soon(Server([node.handlers()]).serve_connection, server)
        stub = health.HealthStub(channel)
        assert (await stub.check(health.HealthCheckRequest())).status == SERVING
        node.end_watches()
        node.set("", True)
        assert (await stub.check(health.HealthCheckRequest())).status == NOT_SERVING
        nursery.cancel_scope.cancel()


async def test_health_while_the_application_is_not_there_yet(mesh: Mesh, autojump_clock: MockClock) -> None:
    """Readiness is real: the node serves, but says NOT_SERVING until its application can be called."""
    mesh.app_link("app").cut()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_start_and_leave, mesh)
        await trio.sleep(5)

        async def dial() -> trio.abc.Stream:
            return await mesh.network.dial("app:50001", source="")

        async with open_channel(dial, authority="app") as channel:
            stub = health.HealthStub(channel)
            assert (await stub.check(health.HealthCheckRequest())).status == NOT_SERVING
            state = (await admin.AdminStub(channel).get_status(admin.GetStatusRequest())).state
            assert state == admin.NodeState.STARTING
            mesh.app_link("app").heal()
            await trio.sleep(5)
            assert (await stub.check(health.HealthCheckRequest())).status == SERVING


async def _start_and_leave(mesh: Mesh) -> None:
    await mesh.start("app", app=blob_service(unary=echo))


# --- what is not built yet

_BUILT = {
    "GetSecret", "GetBulkSecret",
    "InvokeService", "GetState", "GetBulkState", "SaveState", "DeleteState", "DeleteBulkState",
    "ExecuteStateTransaction", "QueryStateAlpha1", "GetMetadata", "SetMetadata", "Shutdown",
    "PublishEvent", "BulkPublishEvent", "BulkPublishEventAlpha1", "SubscribeTopicEventsAlpha1",
    "InvokeBinding", "TryLockAlpha1", "UnlockAlpha1",
    "ConverseAlpha1", "ConverseAlpha2",
    "EncryptAlpha1", "DecryptAlpha1", "SubtleGetKeyAlpha1", "SubtleEncryptAlpha1", "SubtleDecryptAlpha1",
    "SubtleWrapKeyAlpha1", "SubtleUnwrapKeyAlpha1", "SubtleSignAlpha1", "SubtleVerifyAlpha1",
    "GetConfiguration", "GetConfigurationAlpha1", "SubscribeConfiguration", "SubscribeConfigurationAlpha1",
    "UnsubscribeConfiguration", "UnsubscribeConfigurationAlpha1",
}  # fmt: skip


async def test_methods_without_a_block_say_which_one_is_missing(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app")
    said: dict[str, str] = {}
    for path, handler in runtime.DaprBase().__mapping__().items():
        method = path.rpartition("/")[2]
        if method in _BUILT:
            continue
        async with AsyncExitStack() as stack:
            stream = await stack.enter_async_context(
                node.channel.request(path, handler.cardinality, handler.request_type, handler.reply_type)
            )
            await stream.send_message(handler.request_type(), end=True)
            with pytest.raises(GRPCError) as caught:
                await stream.recv_message()
                await stream.recv_trailing_metadata()
        assert caught.value.status is Status.UNIMPLEMENTED, method
        said[method] = caught.value.message or ""
    assert len(said) > 30
    for method, block in {
        "InvokeActor": "actors",
        "ScheduleJobAlpha1": "jobs",
        "StartWorkflowBeta1": "workflow",
    }.items():
        assert f"this node has no {block}" in said[method]
    assert all(method in message and "this node has no " in message for method, message in said.items())
