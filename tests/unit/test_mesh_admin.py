"""The admin API of a node in trouble: what it shows of requests, breakers, policies and logs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from support.blobs import SERVICE, Blob, blob_service
from support.mesh_stores import Flaky, flaky_component
from trio.testing import MockClock

from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import Cardinality, GRPCError, Status
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.meshnode.admin import v1 as admin

RESILIENCY = """---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: careful}
spec:
  policies:
    timeouts: {short: 2s}
    retries:
      forever: {policy: constant, duration: 5s, maxRetries: -1}
    circuitBreakers:
      simpleCB: {maxRequests: 1, timeout: 5s, trip: consecutiveFailures >= 5}
  targets:
    components:
      statestore: {outbound: {timeout: short, retry: forever, circuitBreaker: simpleCB}}
"""


@pytest.fixture
def flaky() -> Flaky:
    return Flaky()


@pytest.fixture
async def mesh(flaky: Flaky) -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([flaky.driver])) as opened:
        yield opened


async def start(mesh: Mesh) -> MeshNode:
    return await mesh.start("app", resources=flaky_component() + RESILIENCY)


async def save(node: MeshNode, key: str = "k", **options: float) -> None:
    item = common.StateItem(key=key, value=b"v")
    await node.dapr.save_state(runtime.SaveStateRequest(store_name="statestore", states=[item]), **options)


async def requests(node: MeshNode, wanted: str = "") -> list[admin.LiveRequest]:
    asked = admin.ListRequestsRequest(filter=wanted)
    return list((await admin.AdminStub(node.channel).list_requests(asked)).requests)


async def test_a_request_under_retry_shows_its_attempts_and_scopes(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    flaky.down = True
    node = await start(mesh)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: save(node, timeout=60))
        await flaky.started.wait()
        await trio.sleep(6)
        [request] = await requests(node)
        assert request.method == "/dapr.proto.runtime.v1.Dapr/SaveState"
        assert request.target == "component/statestore"
        assert request.started_ago == pytest.approx(6, abs=0.5)
        assert request.deadline_in == pytest.approx(54, abs=0.5)
        assert request.scopes == ["deadline", "retry (waiting)"]
        assert [(one.number, one.state, one.code, one.message) for one in request.attempts] == [
            (1, "failed", Status.INTERNAL.value, "the store is down"),
            (2, "failed", Status.INTERNAL.value, "the store is down"),
        ]
        assert [one.waited for one in request.attempts] == [0, 5]
        flaky.hanging = True
        await trio.sleep(4.5)
        [request] = await requests(node, "SaveState")
        assert request.scopes == ["deadline", "retry", "breaker", "timeout"]
        assert request.attempts[-1].state == "running"
        assert request.attempts[-1].code is None
        assert await requests(node, "another method") == []
        await trio.sleep(3)
        [request] = await requests(node, "component/statestore")
        assert request.attempts[-1].state == "timed out"
        flaky.down = flaky.hanging = False
    assert await requests(node) == []


async def test_breakers_are_listed_as_they_open_and_close(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    node = await start(mesh)
    stub = admin.AdminStub(node.channel)

    async def breaker() -> admin.Breaker:
        [found] = (await stub.list_breakers(admin.ListBreakersRequest())).breakers
        return found

    await save(node)
    found = await breaker()
    assert (found.name, found.target) == ("simpleCB-statestore", "component/statestore")
    assert found.state == admin.BreakerState.CLOSED
    assert found.opens_in is None
    assert found.counts is not None
    assert (found.counts.requests, found.counts.total_successes) == (1, 1)
    flaky.down = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(save, node)
        await trio.sleep(22)
        found = await breaker()
        assert found.state == admin.BreakerState.OPEN
        assert found.opens_in == pytest.approx(3, abs=0.5)
        flaky.down = False
    assert (await breaker()).state == admin.BreakerState.CLOSED
    wanted = "Circuit breaker", "Error processing", "Recovered"
    lines = [event.message for event in mesh.history if event.message.startswith(wanted)]
    assert lines == [
        "Error processing operation component[statestore] output. Retrying in 5s…",
        'Circuit breaker "simpleCB-statestore" changed state from closed to open',
        'Circuit breaker "simpleCB-statestore" changed state from open to half-open',
        'Circuit breaker "simpleCB-statestore" changed state from half-open to closed',
        "Recovered processing operation component[statestore] output after 6 attempts",
    ]


async def test_the_policy_of_a_target_is_explained(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    stub = admin.AdminStub((await start(mesh)).channel)
    kind = admin.ExplainRequestKind

    async def explain(kind: admin.ExplainRequestKind, name: str, direction: str = "") -> str:
        asked = admin.ExplainRequest(kind=kind, name=name, direction=direction)
        return "\n".join((await stub.explain(asked)).lines)

    store = await explain(kind.COMPONENT, "statestore")
    assert store.startswith("component statestore, outbound")
    assert "timeout: short, 2s per attempt" in store
    assert "retry: forever, every 5s, without limit" in store
    assert "circuit breaker: simpleCB, opens on consecutiveFailures >= 5 for 5s" in store
    policy = (await stub.explain(admin.ExplainRequest(kind=kind.COMPONENT, name="statestore"))).policy
    assert policy is not None
    assert (policy.timeout, policy.sources.keys()) == (2.0, {"timeout", "retry", "breaker"})
    assert policy.retry == admin.RetryView("forever", "constant", 5.0, 60.0, -1)
    assert policy.breaker == admin.BreakerView("simpleCB", 1, 0.0, 5.0, "consecutiveFailures >= 5")
    assert "timeout: none" in await explain(kind.COMPONENT, "statestore", "inbound")
    assert "connecting: DaprBuiltInServiceRetries" in await explain(kind.APP, "anyone")
    assert (await explain(kind.ACTOR, "Cat")).startswith("actor type Cat")
    for wrong in ((kind(0), "x"), (kind.APP, ""), (kind.COMPONENT, "x", "sideways")):
        with pytest.raises(GRPCError) as caught:
            await explain(*wrong)
        assert caught.value.status is Status.INVALID_ARGUMENT


async def test_the_status_of_a_node(mesh: Mesh, flaky: Flaky, autojump_clock: MockClock) -> None:
    flaky.opening = ValueError("no such disk")
    resources = flaky_component("ignoreErrors: true", name="broken") + flaky_component().replace(
        "state.flaky", "state.in-memory"
    )
    node = await mesh.start("app", resources=resources)
    status = await admin.AdminStub(node.channel).get_status(admin.GetStatusRequest())
    assert (status.app_id, status.namespace, status.app_address) == ("app", "default", "")
    assert status.state == admin.NodeState.READY
    assert (status.grpc_address, status.internal_address) == ("app:50001", "app:50002")
    assert status.started_at == pytest.approx(mesh.wall(), abs=120)
    assert (status.in_flight, status.requests_total, status.connections) == (0, 1, 1)
    states = {one.name: (one.state, one.message) for one in status.components}
    assert states["statestore"] == ("ready", "")
    assert states["broken"] == (
        "failed",
        "error initializing component broken (state.flaky/v1): ValueError: no such disk",
    )
    registered = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    assert [one.name for one in registered.registered_components] == ["statestore"]


# --- logs


async def logs(node: MeshNode, **asked: object) -> list[tuple[str, str, str]]:
    request = admin.StreamLogsRequest(no_follow=True, tail=100, **asked)  # type: ignore[arg-type]
    async with admin.AdminStub(node.channel).stream_logs(request) as records:
        return [(record.level, record.scope, record.message) async for record in records]


async def test_earlier_records_by_level_scope_and_number(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    flaky.opening = ValueError("no")
    broken = flaky_component("ignoreErrors: true")
    node = await mesh.start("app", resources=broken, options={"api_logging": True})
    await mesh.start("another", resources=broken)
    everything = await logs(node)
    assert {level for level, _, _ in everything} == {"info", "error"}
    assert not any("another" in message for _, _, message in everything)
    errors = await logs(node, level="warn")
    assert [(level, scope) for level, scope, _ in errors] == [("error", "meshnode.components")]
    assert {scope for _, scope, _ in await logs(node, scope="meshnode.node")} == {"meshnode.node"}
    stub = admin.AdminStub(node.channel)
    last = admin.StreamLogsRequest(no_follow=True, tail=2, scope="meshnode.api")
    async with stub.stream_logs(last) as records:
        assert len([record async for record in records]) == 2
    request = admin.StreamLogsRequest(no_follow=True, tail=1, scope="meshnode.api")
    async with stub.stream_logs(request) as records:
        [record] = [record async for record in records]
    assert record.message == "gRPC API Called"
    assert record.fields["method"] == "/meshnode.admin.v1.Admin/StreamLogs"
    with pytest.raises(GRPCError, match="unknown log level 'loud'") as caught:
        await logs(node, level="loud")
    assert caught.value.status is Status.INVALID_ARGUMENT


async def test_new_records_are_followed_until_the_node_ends(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    flaky.down = True
    node = await start(mesh)
    seen: list[str] = []

    async def follow() -> None:
        async with admin.AdminStub(node.channel).stream_logs(admin.StreamLogsRequest()) as records:
            async for record in records:
                seen.append(record.message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.sleep(1)
        with trio.move_on_after(1):
            await save(node)
        await node.stop()
    assert seen == ["Error processing operation component[statestore] output. Retrying in 5s…"]


async def test_a_watcher_that_does_not_read_holds_nobody_up(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", options={"api_logging": True})
    async with admin.AdminStub(node.channel).stream_logs(admin.StreamLogsRequest()) as records:
        await trio.sleep(1)
        for number in range(600):
            await node.dapr.set_metadata(runtime.SetMetadataRequest(key="k", value=str(number)))
        first = await anext(records)
        assert first.message == "gRPC API Called"
        with trio.fail_after(5):
            await node.stop()


async def test_what_ends_a_call_from_outside_is_shown_as_that(
    mesh: Mesh, flaky: Flaky, autojump_clock: MockClock
) -> None:
    """A caller that goes away takes its request off the list."""

    async def slow(stream: object) -> None:
        await trio.sleep_forever()

    await mesh.start("callee", app=blob_service(unary=slow))
    node = await mesh.start("caller")

    async def call() -> None:
        metadata = {"dapr-app-id": "callee"}
        async with node.channel.request(
            SERVICE + "Unary", Cardinality.UNARY_UNARY, Blob, Blob, metadata=metadata
        ) as stream:
            await stream.send_message(Blob(b""), end=True)
            await stream.recv_message()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.sleep(1)
        [request] = await requests(node)
        assert (request.method, request.target) == (SERVICE + "Unary", "callee")
        assert request.deadline_in is None
        nursery.cancel_scope.cancel()
    await trio.sleep(1)
    assert await requests(node) == []
