"""The generated stubs and service bases: four call shapes, each way they can end, over memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import memory_stream_pair

from meshnode.transport import Channel, GRPCError, Server, Status, open_channel
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime


def piece(data: bytes) -> runtime.EncryptRequest:
    return runtime.EncryptRequest(payload=common.StreamPayload(data=data))


def answer(data: bytes) -> runtime.EncryptResponse:
    return runtime.EncryptResponse(payload=common.StreamPayload(data=data))


def data_of(response: runtime.EncryptResponse) -> bytes:
    assert response.payload is not None
    return response.payload.data


class Service(runtime.DaprBase):
    """One method of each shape; what a request says decides how the call goes."""

    def __init__(self) -> None:
        self.closed = trio.Event()

    async def get_state(self, message: runtime.GetStateRequest) -> runtime.GetStateResponse:
        if message.key == "missing":
            raise GRPCError(Status.NOT_FOUND, "no such key")
        return runtime.GetStateResponse(data=message.key.encode())

    async def subscribe_configuration(
        self, message: runtime.SubscribeConfigurationRequest
    ) -> AsyncIterator[runtime.SubscribeConfigurationResponse]:
        try:
            for key in message.keys:
                yield runtime.SubscribeConfigurationResponse(id=key)
            if message.store_name == "fails":
                raise GRPCError(Status.ABORTED, "enough")
            if message.store_name == "goes on":
                await trio.sleep_forever()
        finally:
            self.closed.set()

    async def set_binary_file_alpha_1(
        self, messages: AsyncIterator[runtime.SetBinaryFileRequestAlpha1]
    ) -> runtime.SetBinaryFileResponseAlpha1:
        async for message in messages:
            if message.payload is not None and message.payload.data == b"stop":
                raise GRPCError(Status.RESOURCE_EXHAUSTED, "too much")
            if message.payload is not None and message.payload.data == b"enough":
                break
        return runtime.SetBinaryFileResponseAlpha1()

    async def encrypt_alpha_1(
        self, messages: AsyncIterator[runtime.EncryptRequest]
    ) -> AsyncIterator[runtime.EncryptResponse]:
        async for message in messages:
            assert message.payload is not None
            if message.payload.data == b"fail":
                raise GRPCError(Status.DATA_LOSS, "as asked")
            if message.payload.data == b"end":
                return
            yield answer(message.payload.data[::-1])


@asynccontextmanager
async def connected(service: Service) -> AsyncIterator[runtime.DaprStub]:
    server = Server([service])
    async with trio.open_nursery() as nursery:

        async def dial() -> trio.abc.Stream:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(server.serve_connection, theirs)
            return ours

        channel: Channel
        async with open_channel(dial) as channel:
            yield runtime.DaprStub(channel)
        nursery.cancel_scope.cancel()


async def forever(*first: bytes) -> AsyncIterator[runtime.EncryptRequest]:
    """Requests that never end."""
    for data in first:
        yield piece(data)
    await trio.sleep_forever()


async def test_unary() -> None:
    async with connected(Service()) as stub:
        response = await stub.get_state(runtime.GetStateRequest(key="k"))
        assert response == runtime.GetStateResponse(data=b"k")
        with pytest.raises(GRPCError, match="no such key") as caught:
            await stub.get_state(runtime.GetStateRequest(key="missing"))
        assert caught.value.status is Status.NOT_FOUND


async def test_unimplemented_says_which_block_is_missing() -> None:
    async with connected(Service()) as stub:
        with pytest.raises(GRPCError, match="no lock block") as caught:
            await stub.try_lock_alpha_1(runtime.TryLockRequest())
        assert caught.value.status is Status.UNIMPLEMENTED
        assert "/dapr.proto.runtime.v1.Dapr/TryLockAlpha1" in str(caught.value.message)
        with pytest.raises(GRPCError, match="no actors block"):
            async with stub.subscribe_actor_events_alpha_1([]) as responses:
                await anext(responses)


async def test_deprecated_methods_warn() -> None:
    async with connected(Service()) as stub:
        with pytest.raises(GRPCError), pytest.warns(DeprecationWarning, match="get_job_alpha_1"):
            await stub.get_job_alpha_1(runtime.GetJobRequest())


async def test_server_stream() -> None:
    async with connected(Service()) as stub:
        request = runtime.SubscribeConfigurationRequest(keys=["a", "b"])
        async with stub.subscribe_configuration(request) as responses:
            assert [response.id async for response in responses] == ["a", "b"]


async def test_server_stream_that_fails_raises_where_it_is_read() -> None:
    async with connected(Service()) as stub:
        request = runtime.SubscribeConfigurationRequest(store_name="fails", keys=["a"])
        seen = []
        async with stub.subscribe_configuration(request) as responses:
            with pytest.raises(GRPCError, match="enough"):
                async for response in responses:
                    seen.append(response.id)
        assert seen == ["a"]


async def test_leaving_a_server_stream_ends_the_handler() -> None:
    service = Service()
    async with connected(service) as stub:
        request = runtime.SubscribeConfigurationRequest(store_name="goes on", keys=["a"])
        async with stub.subscribe_configuration(request) as responses:
            assert (await anext(responses)).id == "a"
        await service.closed.wait()


@pytest.mark.parametrize("as_async", [False, True])
async def test_client_stream(as_async: bool) -> None:
    requests = [runtime.SetBinaryFileRequestAlpha1(payload=common.StreamPayload(data=b"x")) for _ in range(3)]

    async def source() -> AsyncIterator[runtime.SetBinaryFileRequestAlpha1]:
        for request in requests:
            yield request

    async with connected(Service()) as stub:
        response = await stub.set_binary_file_alpha_1(source() if as_async else requests)
        assert response == runtime.SetBinaryFileResponseAlpha1()


@pytest.mark.parametrize(("last", "status"), [(b"stop", Status.RESOURCE_EXHAUSTED), (b"enough", None)])
async def test_client_stream_that_the_server_ends_early(last: bytes, status: Status | None) -> None:
    async def source() -> AsyncIterator[runtime.SetBinaryFileRequestAlpha1]:
        yield runtime.SetBinaryFileRequestAlpha1(payload=common.StreamPayload(data=last))
        await trio.sleep_forever()

    async with connected(Service()) as stub:
        if status is None:
            await stub.set_binary_file_alpha_1(source())
            return
        with pytest.raises(GRPCError) as caught:
            await stub.set_binary_file_alpha_1(source())
        assert caught.value.status is status


async def test_both_stream() -> None:
    requests = [piece(b"ab"), piece(b"cd")]
    async with connected(Service()) as stub, stub.encrypt_alpha_1(requests) as responses:
        assert [data_of(response) async for response in responses] == [b"ba", b"dc"]


async def test_both_stream_at_their_own_pace() -> None:
    send, receive = trio.open_memory_channel[runtime.EncryptRequest](0)
    async with connected(Service()) as stub, send, stub.encrypt_alpha_1(receive) as responses:
        for data in (b"ab", b"cd"):
            await send.send(piece(data))
            assert data_of(await anext(responses)) == data[::-1]
        await send.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(responses)


@pytest.mark.parametrize("first", [[b"fail"], [b"ab", b"fail"]], ids=["at once", "after a response"])
async def test_both_stream_and_the_server_fails_while_requests_go_on(first: list[bytes]) -> None:
    async with connected(Service()) as stub:
        with pytest.raises(GRPCError, match="as asked") as caught:
            async with stub.encrypt_alpha_1(forever(*first)) as responses:
                async for _ in responses:
                    pass
        assert caught.value.status is Status.DATA_LOSS


async def test_both_stream_and_the_server_ends_while_requests_go_on() -> None:
    async with connected(Service()) as stub, stub.encrypt_alpha_1(forever(b"ab", b"end")) as responses:
        assert [data_of(response) async for response in responses] == [b"ba"]


async def test_leaving_a_call_ends_the_sending_task() -> None:
    ended = trio.Event()

    async def source() -> AsyncIterator[runtime.EncryptRequest]:
        try:
            yield piece(b"ab")
            await trio.sleep_forever()
        finally:
            ended.set()

    async with connected(Service()) as stub:
        async with stub.encrypt_alpha_1(source()) as responses:
            await anext(responses)
        assert ended.is_set()


async def test_an_error_in_the_requests_reaches_the_caller_as_it_is() -> None:
    async def source() -> AsyncIterator[runtime.EncryptRequest]:
        yield piece(b"ab")
        raise RuntimeError("no more")

    async with connected(Service()) as stub:
        with pytest.raises(RuntimeError, match="no more"):
            async with stub.encrypt_alpha_1(source()) as responses:
                async for _ in responses:
                    pass


async def test_an_error_in_the_body_reaches_the_caller_as_it_is() -> None:
    async with connected(Service()) as stub:
        with pytest.raises(KeyError):
            async with stub.encrypt_alpha_1(forever(b"ab")) as responses:
                await anext(responses)
                raise KeyError


async def test_cancelling_a_call_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(Service()) as stub:
        with trio.move_on_after(5) as scope:
            async with stub.encrypt_alpha_1(forever()) as responses:
                await anext(responses)
        assert scope.cancelled_caught


async def test_defaults_of_a_stub_hold_for_every_call(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(Service()) as stub:
        impatient = runtime.DaprStub(stub.channel, timeout=3)
        request = runtime.SubscribeConfigurationRequest(store_name="goes on")
        with pytest.raises(GRPCError) as caught:
            async with impatient.subscribe_configuration(request) as responses:
                await anext(responses)
        assert caught.value.status is Status.DEADLINE_EXCEEDED


async def test_a_unary_handler_without_its_request() -> None:
    class Empty:
        async def recv_message(self) -> None:
            return None

    handler = Service().__mapping__()["/dapr.proto.runtime.v1.Dapr/GetState"]
    with pytest.raises(GRPCError, match="without its request"):
        await handler.func(Empty())
