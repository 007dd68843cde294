"""Invocation and proxying through real nodes, in the in-process mesh on the virtual clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
from support.blobs import SERVICE, Blob, blob_service
from trio.testing import MockClock

from meshnode.testing.mesh import Mesh, MeshNode
from meshnode.transport import Cardinality, GRPCError, Status
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google import protobuf

RETRIES = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies:
    retries:
      three: {policy: constant, duration: 1s, maxRetries: 3}
    timeouts:
      short: 2s
    circuitBreakers:
      simple: {maxRequests: 1, timeout: 30s, trip: consecutiveFailures >= 2}
  targets:
    apps:
      callee: {%s}
"""


class Echo(runtime.AppCallbackBase):
    async def on_invoke(self, message: common.InvokeRequest) -> common.InvokeResponse:
        assert message.data is not None
        data = protobuf.Any(value=message.method.encode() + b":" + message.data.value)
        return common.InvokeResponse(data=data, content_type=message.content_type)


def invocation(app_id: str, method: str, data: bytes = b"") -> runtime.InvokeServiceRequest:
    message = common.InvokeRequest(method=method, data=protobuf.Any(value=data), content_type="text/plain")
    return runtime.InvokeServiceRequest(id=app_id, message=message)


def proxied(
    node: MeshNode, method: str, cardinality: Cardinality, *, to: str = "callee", **options: Any
) -> Any:
    metadata = {"dapr-app-id": to, **options.pop("metadata", {})}
    return node.channel.request(SERVICE + method, cardinality, Blob, Blob, metadata=metadata, **options)


async def unary(node: MeshNode, data: bytes, **options: Any) -> bytes:
    async with proxied(node, "Unary", Cardinality.UNARY_UNARY, **options) as stream:
        await stream.send_message(Blob(data), end=True)
        reply = await stream.recv_message()
        assert reply is not None
        return bytes(reply)


async def test_invoke_service_through_two_nodes(mesh: Mesh, autojump_clock: MockClock) -> None:
    await mesh.start("callee", app=Echo())
    caller = await mesh.start("caller")
    answer = await caller.dapr.invoke_service(invocation("callee", "orders", b"data"))
    assert answer.data is not None
    assert answer.data.value == b"orders:data"
    assert answer.content_type == "text/plain"


async def test_invoking_oneself_needs_no_other_node(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("callee", app=Echo())
    answer = await node.dapr.invoke_service(invocation("callee", "self"))
    assert answer.data is not None
    assert answer.data.value == b"self:"


async def test_an_unknown_app_id_is_internal_with_the_reference_s_words(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    caller = await mesh.start("caller")
    with pytest.raises(GRPCError, match="failed to invoke, id: ghost, err: ") as caught:
        await caller.dapr.invoke_service(invocation("ghost", "orders"))
    assert caught.value.status is Status.INTERNAL
    with pytest.raises(GRPCError) as by_proxy:
        await unary(caller, b"", to="ghost")
    assert by_proxy.value.status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("path", "to", "words"),
    [
        (SERVICE + "Unary", None, "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata"),
        # By these words SDKs know that a method of Dapr's is missing.
        (
            "/dapr.proto.runtime.v1.Dapr/Nothing",
            None,
            "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found",
        ),
        (SERVICE + "Unary", "", "app id is empty"),
    ],
)
async def test_a_foreign_method_without_an_app_id_says_what_is_missing(
    mesh: Mesh, autojump_clock: MockClock, path: str, to: str | None, words: str
) -> None:
    caller = await mesh.start("caller")
    metadata = {} if to is None else {"dapr-app-id": to}
    with pytest.raises(GRPCError, match=words) as caught:
        async with caller.channel.request(
            path, Cardinality.UNARY_UNARY, Blob, Blob, metadata=metadata
        ) as stream:
            await stream.send_message(Blob(b""), end=True)
            await stream.recv_message()
    assert caught.value.status is Status.UNKNOWN


async def test_proxied_calls_carry_metadata_trailers_status_and_details(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    seen: dict[str, Any] = {}

    async def refuse(stream: Any) -> None:
        seen.update(stream.metadata)
        await stream.recv_message()
        await stream.send_trailing_metadata(
            status=Status.FAILED_PRECONDITION,
            status_message="not — today",
            status_details=b"\x08\x09",
            metadata={"why": "because", "raw-bin": b"\x00\xff"},
        )

    await mesh.start("callee", app=blob_service(unary=refuse))
    caller = await mesh.start("caller")
    async with proxied(
        caller, "Unary", Cardinality.UNARY_UNARY, metadata={"note": "x", "n-bin": b"\x01"}
    ) as stream:
        await stream.send_message(Blob(b""), end=True)
        with pytest.raises(GRPCError) as caught:
            await stream.recv_message()
            await stream.recv_trailing_metadata()
        assert stream.trailing_metadata["why"] == "because"
        assert stream.trailing_metadata["raw-bin"] == b"\x00\xff"
    assert caught.value.status is Status.FAILED_PRECONDITION
    assert caught.value.message == "not — today"
    assert caught.value.details == b"\x08\x09"
    assert seen["note"] == "x"
    assert seen["n-bin"] == b"\x01"
    assert seen["dapr-caller-app-id"] == "caller"
    assert seen["dapr-callee-app-id"] == "callee"
    assert "dapr-app-id" not in seen
    assert seen["traceparent"].startswith("00-")


@pytest.mark.parametrize("policies", ["", RETRIES % "timeout: short"])
async def test_a_stream_refused_before_its_first_message_comes_back_unchanged(
    mesh: Mesh, autojump_clock: MockClock, policies: str
) -> None:
    async def refuse(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_trailing_metadata(
            status=Status.ABORTED,
            status_message="no",
            status_details=b"\x08\x0a",
            metadata={"why": "because"},
        )

    await mesh.start("callee", app=blob_service(both=refuse))
    caller = await mesh.start("caller", resources=policies)
    async with proxied(caller, "Both", Cardinality.STREAM_STREAM) as stream:
        await stream.send_message(Blob(b"one of many"))
        with pytest.raises(GRPCError, match="no") as caught:
            await stream.recv_message()
        assert stream.trailing_metadata["why"] == "because"
    assert caught.value.status is Status.ABORTED
    assert caught.value.details == b"\x08\x0a"


async def test_all_cardinalities_are_proxied(mesh: Mesh, autojump_clock: MockClock) -> None:
    async def one(stream: Any) -> None:
        await stream.send_message(Blob((await stream.recv_message()) + b"!"))

    async def many(stream: Any) -> None:
        message = await stream.recv_message()
        for number in range(5):
            await stream.send_message(Blob(message + b"%d" % number))

    async def gather(stream: Any) -> None:
        await stream.send_message(Blob(b"".join([message async for message in stream])))

    async def answer_each(stream: Any) -> None:
        async for message in stream:
            await stream.send_message(Blob(message + b"!"))

    await mesh.start("callee", app=blob_service(unary=one, server=many, client=gather, both=answer_each))
    caller = await mesh.start("caller")
    assert await unary(caller, b"hi") == b"hi!"
    async with proxied(caller, "Server", Cardinality.UNARY_STREAM) as stream:
        await stream.send_message(Blob(b"n"), end=True)
        assert [bytes(reply) async for reply in stream] == [b"n0", b"n1", b"n2", b"n3", b"n4"]
    async with proxied(caller, "Client", Cardinality.STREAM_UNARY) as stream:
        for part in (b"a", b"b", b"c"):
            await stream.send_message(Blob(part))
        await stream.end()
        assert await stream.recv_message() == b"abc"
    async with proxied(caller, "Both", Cardinality.STREAM_STREAM) as stream:
        for part in (b"x", b"y"):
            await stream.send_message(Blob(part))
            assert await stream.recv_message() == part + b"!"
        await stream.end()
        assert await stream.recv_message() is None


async def test_a_callee_may_answer_before_it_has_heard_everything(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    async def hasty(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(Blob(b"enough"))

    await mesh.start("callee", app=blob_service(both=hasty))
    caller = await mesh.start("caller")
    async with proxied(caller, "Both", Cardinality.STREAM_STREAM) as stream:
        await stream.send_message(Blob(b"one of many"))
        assert await stream.recv_message() == b"enough"
        assert await stream.recv_message() is None


async def test_a_callee_may_speak_first(mesh: Mesh, autojump_clock: MockClock) -> None:
    async def greet(stream: Any) -> None:
        await stream.send_message(Blob(b"welcome"))
        await stream.send_message(Blob(b"dear " + (await stream.recv_message())))

    await mesh.start("callee", app=blob_service(both=greet))
    caller = await mesh.start("caller")
    async with proxied(caller, "Both", Cardinality.STREAM_STREAM) as stream:
        await stream.send_request()
        assert await stream.recv_message() == b"welcome"
        await stream.send_message(Blob(b"guest"), end=True)
        assert await stream.recv_message() == b"dear guest"
        assert await stream.recv_message() is None


async def test_a_deadline_shrinks_from_hop_to_hop(mesh: Mesh, autojump_clock: MockClock) -> None:
    left: list[float] = []

    async def look(stream: Any) -> None:
        await stream.recv_message()
        left.append(stream.deadline.time_remaining())
        await stream.send_message(Blob(b""))

    mesh.link("caller", "callee").delay(0.5)
    await mesh.start("callee", app=blob_service(unary=look))
    caller = await mesh.start("caller")
    await unary(caller, b"", timeout=60)
    # What the wire carries is a duration, so the way itself is free; making the connection took round trips.
    assert 57 < left[0] <= 59


async def test_a_deadline_cancels_the_whole_chain(mesh: Mesh, autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def sleep(stream: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    await mesh.start("callee", app=blob_service(unary=sleep))
    caller = await mesh.start("caller")
    began = trio.current_time()
    with pytest.raises(GRPCError) as caught:
        await unary(caller, b"", timeout=3)
    assert caught.value.status is Status.DEADLINE_EXCEEDED
    assert trio.current_time() - began == pytest.approx(3, abs=0.2)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert ended == [pytest.approx(began + 3, abs=0.2)]


async def test_a_caller_that_goes_away_cancels_the_application(mesh: Mesh, autojump_clock: MockClock) -> None:
    started, ended = trio.Event(), trio.Event()

    async def sleep(stream: Any) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    await mesh.start("callee", app=blob_service(unary=sleep))
    caller = await mesh.start("caller")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(unary, caller, b"")
        await started.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(1):
        await ended.wait()
    assert len(caller.node.live) == 0


async def test_a_retry_starts_only_after_the_attempt_before_it_has_ended(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    running = overlaps = 0
    times: list[float] = []

    async def slow(stream: Any) -> None:
        nonlocal running, overlaps
        running += 1
        overlaps += running > 1
        times.append(trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.25)  # an application that takes its time to stop
            running -= 1

    await mesh.start("callee", app=blob_service(unary=slow))
    caller = await mesh.start("caller", resources=RETRIES % "timeout: short, retry: three")
    with pytest.raises(GRPCError) as caught:
        await unary(caller, b"")
    assert caught.value.status is Status.DEADLINE_EXCEEDED
    assert len(times) == 4  # maxRetries: 3 means four attempts
    assert overlaps == 0
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == [pytest.approx(3, abs=0.1)] * 3  # two seconds of timeout, one of waiting


async def test_an_application_s_failure_is_retried_by_a_policy_and_then_comes_back_unchanged(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    attempts = 0

    async def fail(stream: Any) -> None:
        nonlocal attempts
        attempts += 1
        await stream.recv_message()
        raise GRPCError(Status.UNAVAILABLE, f"attempt {attempts}")

    await mesh.start("callee", app=blob_service(unary=fail))
    caller = await mesh.start("caller", resources=RETRIES % "retry: three")
    with pytest.raises(GRPCError, match="attempt 4") as caught:
        await unary(caller, b"")
    assert caught.value.status is Status.UNAVAILABLE
    without = await mesh.start("without")
    attempts = 0
    with pytest.raises(GRPCError, match="attempt 1"):
        await unary(without, b"")  # the built-in retries leave an application's own UNAVAILABLE alone
    assert attempts == 1


async def test_a_stream_is_retried_until_its_first_response_message_only(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    attempts: list[list[bytes]] = []

    async def fussy(stream: Any) -> None:
        heard: list[bytes] = []
        attempts.append(heard)
        heard.append(await stream.recv_message())
        if len(attempts) < 3:
            raise GRPCError(Status.UNAVAILABLE, "not yet")
        heard.append(await stream.recv_message())
        await stream.send_message(Blob(b"first"))
        raise GRPCError(Status.UNAVAILABLE, "too late to retry")

    await mesh.start("callee", app=blob_service(both=fussy))
    caller = await mesh.start("caller", resources=RETRIES % "timeout: short, retry: three")
    async with proxied(caller, "Both", Cardinality.STREAM_STREAM) as stream:
        await stream.send_message(Blob(b"a"))
        await stream.send_message(Blob(b"b"))
        assert await stream.recv_message() == b"first"
        assert await stream.recv_message() is None
        await stream.end()
        with pytest.raises(GRPCError, match="too late to retry"):
            await stream.recv_trailing_metadata()
    assert attempts == [[b"a"], [b"a"], [b"a", b"b"]]


async def test_a_long_stream_outlives_the_attempt_timeout(mesh: Mesh, autojump_clock: MockClock) -> None:
    async def tick(stream: Any) -> None:
        await stream.recv_message()
        for number in range(5):
            await stream.send_message(Blob(b"%d" % number))
            await trio.sleep(1.5)

    await mesh.start("callee", app=blob_service(server=tick))
    caller = await mesh.start("caller", resources=RETRIES % "timeout: short")
    async with proxied(caller, "Server", Cardinality.UNARY_STREAM) as stream:
        await stream.send_message(Blob(b""), end=True)
        assert len([reply async for reply in stream]) == 5


async def test_an_open_breaker_answers_at_once_and_half_opens_in_its_time(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    calls, healthy = 0, False

    async def maybe(stream: Any) -> None:
        nonlocal calls
        calls += 1
        await stream.recv_message()
        if not healthy:
            raise GRPCError(Status.UNAVAILABLE, "down")
        await stream.send_message(Blob(b"up"))

    await mesh.start("callee", app=blob_service(unary=maybe))
    caller = await mesh.start("caller", resources=RETRIES % "circuitBreaker: simple")
    for _ in range(2):
        with pytest.raises(GRPCError, match="down"):
            await unary(caller, b"")
    with pytest.raises(GRPCError, match="circuit breaker is open") as caught:
        await unary(caller, b"")
    assert caught.value.status is Status.UNKNOWN
    assert calls == 2
    healthy = True
    await trio.sleep(30)
    assert await unary(caller, b"") == b"up"
    changes = [event.message for event in mesh.history if "changed state" in event.message]
    assert [change.rpartition(" from ")[2] for change in changes] == [
        "closed to open",
        "open to half-open",
        "half-open to closed",
    ]


async def test_a_cut_link_is_an_error_and_a_healed_one_is_found_again(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    async def one(stream: Any) -> None:
        await stream.send_message(Blob(await stream.recv_message()))

    await mesh.start("callee", app=blob_service(unary=one))
    caller = await mesh.start("caller")
    assert await unary(caller, b"1") == b"1"
    mesh.link("caller", "callee").cut()
    with pytest.raises(GRPCError) as caught:
        await unary(caller, b"2")
    assert caught.value.status is Status.UNAVAILABLE
    mesh.link("caller", "callee").heal()
    await trio.sleep(30)
    assert await unary(caller, b"3") == b"3"


async def test_of_two_instances_a_dead_one_is_skipped(mesh: Mesh, autojump_clock: MockClock) -> None:
    def named(name: bytes) -> Any:
        async def one(stream: Any) -> None:
            await stream.recv_message()
            await stream.send_message(Blob(name))

        return blob_service(unary=one)

    first = await mesh.start("callee", app=named(b"1"), instance="one")
    await mesh.start("callee", app=named(b"2"), instance="two")
    caller = await mesh.start("caller")
    seen = {await unary(caller, b"") for _ in range(40)}
    assert seen == {b"1", b"2"}
    await first.kill()
    assert {await unary(caller, b"") for _ in range(20)} == {b"2"}


async def test_shutdown_drains_what_is_in_flight_and_then_cancels(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    release, started = trio.Event(), trio.Event()

    async def wait(stream: Any) -> None:
        message = await stream.recv_message()
        started.set()
        if message == b"for ever":
            await trio.sleep_forever()
        await release.wait()
        await stream.send_message(Blob(b"done"))

    await mesh.start("callee", app=blob_service(unary=wait))
    caller = await mesh.start("caller")
    results: list[Any] = []

    async def call(data: bytes) -> None:
        try:
            results.append(await unary(caller, data))
        except GRPCError as error:
            results.append(error.status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, b"a while")
        nursery.start_soon(call, b"for ever")
        await started.wait()
        await trio.sleep(1)
        nursery.start_soon(caller.stop)
        await trio.sleep(1)
        release.set()
    assert b"done" in results
    assert any(isinstance(result, Status) for result in results)
    ledger = mesh.history[-1].message
    assert ledger.startswith("Shutdown complete: 1 requests served, 1 of them while draining, 1 cancelled")


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_same_seed_gives_the_same_history(seed: int, autojump_clock: MockClock) -> None:
    from meshnode.testing.mesh import open_mesh

    async def history() -> list[Any]:
        async def flaky(stream: Any) -> None:
            await stream.recv_message()
            if mesh.rng.random() < 0.5:
                raise GRPCError(Status.UNAVAILABLE, "chance")
            await stream.send_message(Blob(b""))

        async with open_mesh(seed) as mesh:
            mesh.link("caller", "callee").delay(0.1, jitter=0.1)
            await mesh.start("callee", app=blob_service(unary=flaky))
            caller = await mesh.start("caller", resources=RETRIES % "retry: three, circuitBreaker: simple")
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(_quietly, caller)
            return list(mesh.history)

    first, second = await history(), await history()
    assert first == second
    assert any("Error processing operation" in event.message for event in first)


async def _quietly(caller: MeshNode) -> None:
    try:
        await unary(caller, b"")
    except GRPCError:
        pass


async def test_an_application_that_is_gone_has_answered_unavailable(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    await mesh.start("callee", app=Echo())
    caller = await mesh.start("caller")
    mesh.app_link("callee").cut()
    with pytest.raises(GRPCError) as invoked:
        await caller.dapr.invoke_service(invocation("callee", "orders"))
    with pytest.raises(GRPCError) as proxied_to:
        await unary(caller, b"")
    assert invoked.value.status is Status.UNAVAILABLE
    assert proxied_to.value.status is Status.UNAVAILABLE
