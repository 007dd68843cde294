"""InvokeService on both sides, and `dapr.proto.internals.v1` as a daprd on the other side speaks it: metadata
both ways, chunks, deadlines, and peers that send nonsense.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from google.rpc import error_details_pb2, status_pb2
from support.blobs import Blob
from trio.testing import MockClock

from meshnode.testing.mesh import Mesh, MeshNode
from meshnode.transport import Cardinality, Channel, GRPCError, Handler, Server, Status, open_channel
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.internals import v1 as internals
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Any as Packed

INVOKE = "/dapr.proto.runtime.v1.Dapr/InvokeService"
CALL_LOCAL = "/dapr.proto.internals.v1.ServiceInvocation/CallLocal"
ON_INVOKE = "/dapr.proto.runtime.v1.AppCallback/OnInvoke"


def application(func: Any, *, raw: bool = False) -> Any:
    """An application whose OnInvoke gets the whole stream; `raw` leaves its messages undecoded."""
    types = (Blob, Blob) if raw else (common.InvokeRequest, common.InvokeResponse)
    handler = Handler(func, Cardinality.UNARY_UNARY, *types)

    class App:
        def __mapping__(self) -> dict[str, Handler]:
            return {ON_INVOKE: handler}

    return App()


async def echo(stream: Any) -> None:
    request = await stream.recv_message()
    data = Packed(value=request.method.encode() + b":" + request.data.value, type_url=request.data.type_url)
    await stream.send_message(common.InvokeResponse(data=data, content_type=request.content_type))


def message(data: bytes = b"data", method: str = "m") -> common.InvokeRequest:
    return common.InvokeRequest(method=method, data=Packed(value=data), content_type="text/plain")


def invocation(**options: Any) -> runtime.InvokeServiceRequest:
    return runtime.InvokeServiceRequest(id="app", message=message(**options))


@asynccontextmanager
async def invoking(node: MeshNode, **options: Any) -> AsyncIterator[Any]:
    """The stream of an InvokeService, for tests that look at its metadata."""
    shape = Cardinality.UNARY_UNARY, runtime.InvokeServiceRequest, common.InvokeResponse
    async with node.channel.request(INVOKE, *shape, **options) as stream:
        await stream.send_message(invocation(), end=True)
        yield stream


@asynccontextmanager
async def daprd(mesh: Mesh, to: str = "app") -> AsyncIterator[Channel]:
    """What another sidecar has: a channel to the node's internal server."""

    async def dial() -> trio.abc.Stream:
        return await mesh.network.dial(f"{to}:50002", source="daprd")

    async with open_channel(dial, authority=f"{to}:50002") as channel:
        yield channel


def inner(one: common.InvokeRequest | None, **metadata: str) -> internals.InternalInvokeRequest:
    """A request as daprd makes it; metadata with underscores for hyphens."""
    named = {
        key.replace("_", "-"): internals.ListStringValue(values=[value]) for key, value in metadata.items()
    }
    return internals.InternalInvokeRequest(ver=internals.ApiVersion.V1, metadata=named, message=one)


# --- metadata


async def test_metadata_travels_both_ways(mesh: Mesh, autojump_clock: MockClock) -> None:
    seen: dict[str, Any] = {}

    async def app(stream: Any) -> None:
        seen.update({key: stream.metadata.getall(key) for key in stream.metadata})
        await stream.recv_message()
        await stream.send_initial_metadata(metadata={"head": "h", "head-bin": b"\x00\xfe"})
        await stream.send_message(common.InvokeResponse())
        await stream.send_trailing_metadata(metadata={"tail": "t — t".encode("ascii", "ignore").decode()})

    await mesh.start("app", app=application(app))
    caller = await mesh.start("caller")
    given: list[tuple[str, Any]] = [("note", "one"), ("note", "two"), ("raw-bin", b"\x00\xff\x01")]
    from multidict import MultiDict

    async with invoking(caller, metadata=MultiDict(given)) as stream:
        assert await stream.recv_message() == common.InvokeResponse()
        await stream.recv_trailing_metadata()
        assert stream.initial_metadata["head"] == "h"
        assert stream.initial_metadata["head-bin"] == b"\x00\xfe"
        assert stream.trailing_metadata["tail"] == "t  t"
    assert seen["note"] == ["one", "two"]
    assert seen["raw-bin"] == [b"\x00\xff\x01"]
    assert seen["dapr-caller-app-id"] == ["caller"]
    assert seen["dapr-callee-app-id"] == ["app"]
    [trace] = seen["traceparent"]
    assert trace.startswith("00-")
    assert seen["x-forwarded-for"] == ["caller"]
    assert not {key for key in seen if key.startswith((":", "grpc-"))} - {"grpc-timeout"}


async def test_the_trace_goes_on_with_a_span_of_its_own(mesh: Mesh, autojump_clock: MockClock) -> None:
    seen: list[str] = []

    async def app(stream: Any) -> None:
        seen.extend(stream.metadata.getall("traceparent"))
        await echo(stream)

    await mesh.start("app", app=application(app))
    caller = await mesh.start("caller")
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with invoking(caller, metadata={"traceparent": f"00-{trace}-{span}-01"}) as stream:
        await stream.recv_message()
    [after] = seen
    _, same, own, flags = after.split("-")
    assert (same, flags) == (trace, "01")
    assert own != span


async def test_an_application_s_error_comes_back_with_all_it_said(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    details = status_pb2.Status(code=9, message="not today")
    details.details.add().Pack(error_details_pb2.ErrorInfo(reason="CLOSED", domain="shop"))

    async def app(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_initial_metadata(metadata={"head": "h"})
        await stream.send_trailing_metadata(
            status=Status.FAILED_PRECONDITION,
            status_message="not today",
            status_details=details.SerializeToString(),
            metadata={"why": "because", "why-bin": b"\xfe"},
        )

    await mesh.start("app", app=application(app))
    for name in ("caller", "app"):  # through two nodes, and on one's own
        node = await mesh.start(name, instance=f"{name}-too", app=application(app))
        async with invoking(node) as stream:
            with pytest.raises(GRPCError) as caught:
                await stream.recv_message()
                await stream.recv_trailing_metadata()
            assert stream.initial_metadata["head"] == "h"
            assert stream.trailing_metadata["why"] == "because"
            assert stream.trailing_metadata["why-bin"] == b"\xfe"
        assert caught.value.status is Status.FAILED_PRECONDITION
        assert caught.value.message == "not today"
        info = error_details_pb2.ErrorInfo()
        [packed] = status_pb2.Status.FromString(caught.value.details or b"").details
        assert packed.Unpack(info)
        assert (info.reason, info.domain) == ("CLOSED", "shop")


async def test_details_that_are_no_status_do_not_hide_the_error(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    async def app(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_trailing_metadata(
            status=Status.NOT_FOUND, status_message="gone", status_details=b"\xff\xff"
        )

    await mesh.start("app", app=application(app))
    caller = await mesh.start("caller")
    with pytest.raises(GRPCError, match="gone") as caught:
        await caller.dapr.invoke_service(invocation())
    assert caught.value.status is Status.NOT_FOUND


# --- deadlines, nonsense


async def test_a_deadline_of_an_invocation_reaches_the_application_and_cancels_it(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    left: list[float] = []
    ended: list[float] = []

    async def app(stream: Any) -> None:
        left.append(stream.deadline.time_remaining())
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    await mesh.start("app", app=application(app))
    caller = await mesh.start("caller")
    began = trio.current_time()
    with pytest.raises(GRPCError) as caught:
        await caller.dapr.invoke_service(invocation(), timeout=4)
    assert caught.value.status is Status.DEADLINE_EXCEEDED
    assert trio.current_time() - began == pytest.approx(4, abs=0.1)
    await trio.sleep(0.1)
    assert 3 < left[0] <= 4
    assert ended == [pytest.approx(began + 4, abs=0.1)]


async def test_a_caller_that_goes_away_cancels_the_application(mesh: Mesh, autojump_clock: MockClock) -> None:
    started, ended = trio.Event(), trio.Event()

    async def app(stream: Any) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    await mesh.start("app", app=application(app))
    caller = await mesh.start("caller")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.dapr.invoke_service, invocation())
        await started.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(1):
        await ended.wait()


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x05ab"])
async def test_an_application_that_answers_nonsense(
    mesh: Mesh, autojump_clock: MockClock, garbage: bytes
) -> None:
    async def app(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(Blob(garbage))

    await mesh.start("app", app=application(app, raw=True))
    caller = await mesh.start("caller")
    with pytest.raises(GRPCError, match="the application sent a malformed message") as caught:
        await caller.dapr.invoke_service(invocation())
    assert caught.value.status is Status.INTERNAL


async def test_a_peer_that_answers_nonsense(mesh: Mesh, autojump_clock: MockClock) -> None:
    async def nonsense(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(Blob(b"\xff\xff\xff"))

    handler = Handler(nonsense, Cardinality.UNARY_UNARY, Blob, Blob)

    class Peer:
        def __mapping__(self) -> dict[str, Handler]:
            return {CALL_LOCAL: handler}

    caller = await mesh.start("caller")
    real = await mesh.start("app", app=application(echo))
    await real.kill()
    async with trio.open_nursery() as nursery:
        # The same address, another program: what a name registry that lags behind leads to.
        await nursery.start(Server([Peer()]).serve, [mesh.network.listen("app:50002")])
        mesh.announce("app", "app:50002")
        with pytest.raises(
            GRPCError, match="failed to invoke, id: app, err: the node of app sent a mal"
        ) as caught:
            await caller.dapr.invoke_service(invocation())
        nursery.cancel_scope.cancel()
    assert caught.value.status is Status.INTERNAL


# --- a daprd on the other side


async def test_call_local_from_a_daprd(mesh: Mesh, autojump_clock: MockClock) -> None:
    seen: dict[str, Any] = {}

    async def app(stream: Any) -> None:
        seen.update(stream.metadata)
        await echo(stream)

    await mesh.start("app", app=application(app))
    metadata = {
        "dapr_caller_app_id": "theirs",
        "dapr_callee_app_id": "app",
        "destination_app_id": "app",
        "Some_Header": "value",
        "raw_bin": base64.b64encode(b"\x00\xff").decode(),
        "content_type": "application/grpc",
        "user_agent": "grpc-go/1.73",
    }
    async with daprd(mesh) as channel:
        stub = internals.ServiceInvocationStub(channel)
        answer = await stub.call_local(inner(message(), **metadata))
    assert answer.status is not None
    assert answer.status.code == 0
    assert answer.message is not None
    assert answer.message.data is not None
    assert answer.message.data.value == b"m:data"
    assert seen["dapr-caller-app-id"] == "theirs"
    assert seen["some-header"] == "value"
    assert seen["raw-bin"] == b"\x00\xff"
    assert "content-type" in answer.headers


async def test_an_application_s_error_is_inside_the_answer_to_a_daprd(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    async def app(stream: Any) -> None:
        await stream.recv_message()
        raise GRPCError(Status.NOT_FOUND, "no such order")

    await mesh.start("app", app=application(app))
    async with daprd(mesh) as channel:
        answer = await internals.ServiceInvocationStub(channel).call_local(inner(message()))
    assert answer.status is not None
    assert (answer.status.code, answer.status.message) == (Status.NOT_FOUND.value, "no such order")


async def test_what_a_daprd_hears_of_a_node_that_cannot_serve_it(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    await mesh.start("app")
    await mesh.start("full", app=application(echo))
    async with daprd(mesh) as channel, daprd(mesh, "full") as other:
        with pytest.raises(GRPCError, match="app channel is not initialized") as caught:
            await internals.ServiceInvocationStub(channel).call_local(inner(message()))
        assert caught.value.status is Status.INTERNAL
        with pytest.raises(GRPCError, match="parsing InternalInvokeRequest error") as caught:
            await internals.ServiceInvocationStub(other).call_local(inner(None))
        assert caught.value.status is Status.INVALID_ARGUMENT
        with pytest.raises(GRPCError, match="CallActor is not implemented: this node has no") as caught:
            await internals.ServiceInvocationStub(other).call_actor(inner(message()))
        assert caught.value.status is Status.UNIMPLEMENTED


def chunk(data: bytes, seq: int) -> common.StreamPayload:
    return common.StreamPayload(data=data, seq=seq)


async def stream_to(
    mesh: Mesh, *parts: internals.InternalInvokeRequestStream, to: str = "app"
) -> list[internals.InternalInvokeResponseStream]:
    async with daprd(mesh, to) as channel:
        stub = internals.ServiceInvocationStub(channel)
        async with stub.call_local_stream(parts) as answers:
            return [answer async for answer in answers]


part = internals.InternalInvokeRequestStream


async def test_a_request_in_chunks_is_put_together_and_answered_in_chunks(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    await mesh.start("app", app=application(echo))
    first = message(b"")
    assert first.data is not None
    first.data.type_url = "type.googleapis.com/x"
    answers = await stream_to(
        mesh,
        part(request=inner(first, dapr_caller_app_id="theirs"), payload=chunk(b"a" * 4000, 0)),
        part(payload=chunk(b"b" * 4000, 1)),
        part(payload=chunk(b"c" * 4000, 2)),
    )
    assert [answer.payload.seq for answer in answers if answer.payload is not None] == [0, 1, 2]
    whole = b"".join(answer.payload.data for answer in answers if answer.payload is not None)
    assert whole == b"m:" + b"a" * 4000 + b"b" * 4000 + b"c" * 4000
    [response] = [answer.response for answer in answers if answer.response is not None]
    assert answers[0].response is response
    assert response.message is not None
    assert response.message.data is not None
    assert (response.message.data.value, response.message.data.type_url) == (b"", "type.googleapis.com/x")
    assert response.message.content_type == "text/plain"


async def test_an_answer_without_data_is_one_message_without_payload(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    async def app(stream: Any) -> None:
        await stream.recv_message()
        raise GRPCError(Status.ABORTED, "no")

    await mesh.start("app", app=application(app))
    [answer] = await stream_to(mesh, part(request=inner(message(b""))))
    assert answer.payload is None
    assert answer.response is not None
    assert answer.response.status is not None
    assert answer.response.status.code == Status.ABORTED.value


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "ended without a request"),
        ([part(payload=chunk(b"x", 0))], "the first message of CallLocalStream carries no request"),
        ([part(request=inner(None))], "carries no message"),
        (
            [part(request=inner(message()), payload=chunk(b"x", 0)), part(payload=chunk(b"y", 2))],
            "chunk 2 of CallLocalStream came where 1 was due",
        ),
        ([part(request=inner(message()), payload=chunk(b"x", 1))], "chunk 1 .* came where 0 was due"),
        (
            [part(request=inner(message())), part(request=inner(message()))],
            "only the first message of CallLocalStream may carry a request",
        ),
    ],
    ids=["empty", "no request", "no message", "gap", "late start", "two requests"],
)
async def test_streams_that_make_no_sense_are_refused(
    mesh: Mesh, autojump_clock: MockClock, parts: list[Any], words: str
) -> None:
    calls: list[Any] = []

    async def app(stream: Any) -> None:
        calls.append(stream)
        await echo(stream)

    node = await mesh.start("app", app=application(app))
    with pytest.raises(GRPCError, match=words) as caught:
        await stream_to(mesh, *parts)
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert calls == []
    assert len(node.node.live) == 0


async def test_chunks_cannot_carry_more_than_a_message_may(mesh: Mesh, autojump_clock: MockClock) -> None:
    await mesh.start("app", app=application(echo), options={"max_body_size": 10_000})
    parts = [part(request=inner(message()))]
    parts += [part(payload=chunk(b"x" * 4096, seq)) for seq in range(3)]
    with pytest.raises(GRPCError, match="more than 10000 bytes") as caught:
        await stream_to(mesh, *parts)
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
