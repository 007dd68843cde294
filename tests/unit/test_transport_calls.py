"""Calls between our channel and our server, in memory and on the virtual clock."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import trio
from hyperframe.frame import PingFrame, RstStreamFrame
from multidict import MultiDict
from transport_pairs import CHAT, DOWNLOAD, REQUEST, UPLOAD, Raw, Service, attacked, connected, request, unary
from trio.testing import MockClock

from meshnode.errors import InvalidArgument, MeshError
from meshnode.transport import Deadline, GRPCError, KeepAlive, Limits, ProtocolError, RawCall, Server, Status


async def test_the_four_shapes() -> None:
    async def upload(stream: Any) -> None:
        await stream.send_message(Raw(b"".join([message async for message in stream])))

    async def download(stream: Any) -> None:
        for byte in await stream.recv_message():
            await stream.send_message(Raw(bytes((byte,))))

    async def chat(stream: Any) -> None:
        async for message in stream:
            await stream.send_message(Raw(message + b"!"))

    service = Service(Upload=(upload, UPLOAD), Download=(download, DOWNLOAD), Chat=(chat, CHAT))
    async with connected(Server([service])) as channel:
        assert await unary(channel, "Echo", b"hello") == b"hello"
        async with request(channel, "Upload", UPLOAD) as stream:
            await stream.send_message(Raw(b"a"))
            await stream.send_message(Raw(b"b"), end=True)
            assert await stream.recv_message() == b"ab"
        async with request(channel, "Download", DOWNLOAD) as stream:
            await stream.send_message(Raw(b"xyz"), end=True)
            assert [message async for message in stream] == [b"x", b"y", b"z"]
        async with request(channel, "Chat", CHAT) as stream:
            for word in (b"one", b"two"):
                await stream.send_message(Raw(word))
                assert await stream.recv_message() == word + b"!"
            await stream.end()
            assert await stream.recv_message() is None


# --- deadlines


async def test_a_deadline_ends_the_handler_and_the_call_at_its_time(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def slow(stream: Any) -> None:
        assert stream.deadline.time_remaining() == pytest.approx(2.5)
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with connected(Server([Service(Slow=(slow, DOWNLOAD))])) as channel:
        await channel.wait_ready()
        start = trio.current_time()
        with pytest.raises(GRPCError) as error:
            await unary(channel, "Slow", timeout=2.5)
        assert error.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - start == pytest.approx(2.5)
        await trio.testing.wait_all_tasks_blocked()
        assert [time - start for time in ended] == [pytest.approx(2.5)]
        assert channel.in_flight == 0


async def test_the_server_answers_deadline_exceeded_to_a_client_that_would_wait(
    autojump_clock: MockClock,
) -> None:
    async def slow(_stream: Any) -> None:
        await trio.sleep_forever()

    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/test.Service/Slow"),
        (b":authority", b"x"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"grpc-timeout", b"1500m"),
    ]
    async with connected(Server([Service(Slow=(slow, DOWNLOAD))])) as channel:
        await channel.wait_ready()
        start = trio.current_time()
        response = await channel.unary_raw(headers, b"\0\0\0\0\0")
        assert response.trailers.get(b"grpc-status") == b"4"
        assert response.headers is response.trailers
        assert trio.current_time() - start == pytest.approx(1.5)


async def test_the_earlier_of_timeout_and_deadline_counts(autojump_clock: MockClock) -> None:
    seen: list[float] = []

    async def look(stream: Any) -> None:
        seen.append(stream.deadline.time_remaining())
        await stream.send_message(Raw(b""))

    async with connected(Server([Service(Look=(look, UPLOAD))])) as channel:
        await channel.wait_ready()
        await unary(channel, "Look", timeout=5, deadline=Deadline.after(9))
        await unary(channel, "Look", timeout=5, deadline=Deadline.after(3))
        await unary(channel, "Look", deadline=Deadline.from_timeout(7))
    assert seen == [pytest.approx(5), pytest.approx(3), pytest.approx(7)]


async def test_without_a_timeout_there_is_no_deadline() -> None:
    seen: list[Any] = []

    async def look(stream: Any) -> None:
        seen.append((stream.deadline, stream.nursery.cancel_scope.deadline))
        await echo_once(stream)

    async with connected(Server([Service(Look=(look, UPLOAD))])) as channel:
        await unary(channel, "Look", b"x")
    assert seen == [(None, math.inf)]


async def echo_once(stream: Any) -> None:
    await stream.send_message(await stream.recv_message())


async def test_an_answer_that_was_ready_in_time_is_not_a_deadline(autojump_clock: MockClock) -> None:
    async def just_in_time(stream: Any) -> None:
        await trio.sleep(0.999)
        await echo_once(stream)

    async with connected(Server([Service(Close=(just_in_time, UPLOAD))])) as channel:
        await channel.wait_ready()
        assert await unary(channel, "Close", b"made it", timeout=1) == b"made it"


async def test_a_deadline_covers_waiting_for_the_connection(autojump_clock: MockClock) -> None:
    from meshnode.transport import open_channel

    async with open_channel(trio.sleep_forever) as channel:
        with pytest.raises(GRPCError) as error:
            await unary(channel, "Echo", timeout=3)
        assert error.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == pytest.approx(3, abs=0.01)
        assert channel.in_flight == 0


async def test_a_deadline_covers_blocked_sending_on_both_sides(autojump_clock: MockClock) -> None:
    """Neither reads: the windows fill up, and both ends are released at the deadline."""
    released: list[str] = []

    async def flood(stream: Any) -> None:
        try:
            while True:
                await stream.send_message(Raw(bytes(100_000)))
        finally:
            released.append("server")

    async with connected(Server([Service(Flood=(flood, CHAT))])) as channel:
        await channel.wait_ready()
        with pytest.raises(GRPCError) as error:
            async with request(channel, "Flood", CHAT, timeout=2) as stream:
                while True:
                    await stream.send_message(Raw(bytes(100_000)))
        assert error.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == pytest.approx(2, abs=0.01)
        await trio.testing.wait_all_tasks_blocked()
        assert released == ["server"]
        assert await unary(channel, "Echo", b"alive") == b"alive"


# --- cancellation


async def test_cancelling_the_caller_cancels_the_handler(autojump_clock: MockClock) -> None:
    started, ended = trio.Event(), trio.Event()

    async def hang(_stream: Any) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    server = Server([Service(Hang=(hang, UPLOAD))])
    async with connected(server) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(unary, channel, "Hang")
            await started.wait()
            assert (channel.in_flight, server.in_flight) == (1, 1)
            nursery.cancel_scope.cancel()
        await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert (channel.in_flight, server.in_flight) == (0, 0)


async def test_a_request_reset_before_its_task_ran_does_no_work() -> None:
    ran: list[str] = []

    async def handler(_stream: Any) -> None:
        ran.append("begun")
        await trio.lowlevel.checkpoint()
        ran.append("went on")

    server = Server([Service(Echo=(handler, UPLOAD))])
    async with attacked(server) as peer:
        await peer.send(peer.headers(1, REQUEST), RstStreamFrame(1, error_code=8), PingFrame(0, bytes(8)))
        await peer.expect(PingFrame)
        await trio.testing.wait_all_tasks_blocked()
        assert "went on" not in ran
        assert server.in_flight == 0


async def test_what_a_handler_started_ends_with_its_request(autojump_clock: MockClock) -> None:
    history: list[str] = []

    async def child() -> None:
        try:
            await trio.sleep(1)
            history.append("child done")
        except trio.Cancelled:
            history.append("child cancelled")
            raise

    async def patient(stream: Any) -> None:
        stream.nursery.start_soon(child)
        await echo_once(stream)

    async def impatient(stream: Any) -> None:
        stream.nursery.start_soon(child)
        await echo_once(stream)
        await trio.lowlevel.checkpoint()
        stream.nursery.cancel_scope.cancel()

    service = Service(Patient=(patient, UPLOAD), Impatient=(impatient, UPLOAD))
    async with connected(Server([service])) as channel:
        assert await unary(channel, "Patient", b"1") == b"1"
        history.append("answered")
        assert await unary(channel, "Impatient", b"2") == b"2"
    assert history == ["child done", "answered", "child cancelled"]


async def test_a_failing_child_fails_the_request(caplog: pytest.LogCaptureFixture) -> None:
    async def child() -> None:
        raise GRPCError(Status.DATA_LOSS, "the child's")

    async def parent(stream: Any) -> None:
        stream.nursery.start_soon(child)
        await echo_once(stream)

    async with connected(Server([Service(Parent=(parent, UPLOAD))])) as channel:
        with pytest.raises(GRPCError) as error:
            await unary(channel, "Parent", b"lost")
    assert (error.value.status, error.value.message) == (Status.DATA_LOSS, "the child's")
    assert not caplog.records


async def test_a_handler_that_cancels_itself_answers_cancelled() -> None:
    async def handler(stream: Any) -> None:
        stream.nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()

    async with connected(Server([Service(Own=(handler, UPLOAD))])) as channel:
        with pytest.raises(GRPCError) as error:
            await unary(channel, "Own")
    assert error.value.status is Status.CANCELLED


# --- statuses


async def raising(error: Exception, **options: Any) -> GRPCError:
    async def handler(_stream: Any) -> None:
        raise error

    async with connected(Server([Service(Bad=(handler, UPLOAD))], **options)) as channel:
        with pytest.raises(GRPCError) as caught:
            await unary(channel, "Bad")
        assert await unary(channel, "Echo", b"still here") == b"still here"
    return caught.value


async def test_a_grpc_error_arrives_as_it_was_raised() -> None:
    error = await raising(GRPCError(Status.FAILED_PRECONDITION, "früh 100%\n", b"\x08\x09"))
    assert (error.status, error.message, error.details) == (
        Status.FAILED_PRECONDITION,
        "früh 100%\n",
        b"\x08\x09",
    )


async def test_a_mesh_error_brings_its_code_and_details() -> None:
    def encode(error: MeshError) -> bytes:
        return error.message.encode().upper()

    error = await raising(InvalidArgument("no such key"), encode_details=encode)
    assert (error.status, error.message, error.details) == (
        Status.INVALID_ARGUMENT,
        "no such key",
        b"NO SUCH KEY",
    )


async def test_any_other_error_is_internal_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = await raising(KeyError("secret"))
    assert error.status is Status.INTERNAL
    assert "KeyError" in (error.message or "")
    assert "secret" not in (error.message or "")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_several_errors_at_once_are_internal(caplog: pytest.LogCaptureFixture) -> None:
    error = await raising(ExceptionGroup("two", [ValueError("a"), TypeError("b")]))
    assert error.status is Status.INTERNAL
    assert caplog.records


async def test_an_unknown_method_names_what_is_unknown() -> None:
    async with connected(Server([Service()])) as channel:
        for path, message in (
            ("/test.Service/Nope", "unknown method Nope for service test.Service"),
            ("/other.Service/Nope", "unknown service other.Service"),
        ):
            with pytest.raises(GRPCError) as error:
                async with channel.request(path, UPLOAD, Raw, Raw) as stream:
                    await stream.send_message(Raw(b""), end=True)
                    await stream.recv_message()
            assert (error.value.status, error.value.message) == (Status.UNIMPLEMENTED, message)


async def test_a_unary_handler_has_to_answer() -> None:
    async def silent(_stream: Any) -> None:
        pass

    async with connected(Server([Service(Silent=(silent, UPLOAD))])) as channel:
        with pytest.raises(GRPCError, match="without a response"):
            await unary(channel, "Silent")


async def test_a_unary_call_has_one_answer() -> None:
    async def twice(stream: Any) -> None:
        await stream.send_message(Raw(b"1"))
        with pytest.raises(ProtocolError):
            await stream.send_message(Raw(b"2"))

    async def stream_of_two(stream: Any) -> None:
        await stream.send_message(Raw(b"1"))
        await stream.send_message(Raw(b"2"))

    service = Service(Twice=(twice, UPLOAD), Two=(stream_of_two, DOWNLOAD))
    async with connected(Server([service])) as channel:
        assert await unary(channel, "Twice") == b"1"
        with pytest.raises(GRPCError, match="several messages"):
            await unary(channel, "Two")


# --- metadata


async def test_metadata_both_ways() -> None:
    async def handler(stream: Any) -> None:
        await stream.send_initial_metadata(metadata={"first": "1", "raw-bin": b"\0\xff"})
        await stream.send_message(Raw(stream.metadata["question"].encode() + stream.metadata["extra-bin"]))
        await stream.send_trailing_metadata(metadata=MultiDict([("last", "a"), ("last", "b")]))

    async with connected(Server([Service(Meta=(handler, UPLOAD))])) as channel:
        metadata = {"question": "why? ", "extra-bin": b"\x80\x81"}
        async with request(channel, "Meta", metadata=metadata) as stream:
            await stream.send_message(Raw(b""), end=True)
            assert await stream.recv_message() == b"why? \x80\x81"
            await stream.recv_trailing_metadata()
    assert dict(stream.initial_metadata) == {"first": "1", "raw-bin": b"\0\xff"}
    assert list(stream.trailing_metadata.items()) == [("last", "a"), ("last", "b")]
    assert stream.trailers.get(b"grpc-status") == b"0"


async def test_a_call_may_end_before_its_message_with_metadata() -> None:
    async def handler(stream: Any) -> None:
        await stream.send_trailing_metadata(
            status=Status.ABORTED, status_message="no", status_details=b"d", metadata={"why": "because"}
        )

    async with connected(Server([Service(Refuse=(handler, UPLOAD))])) as channel:
        with pytest.raises(GRPCError) as error:
            async with request(channel, "Refuse") as stream:
                await stream.send_message(Raw(b""), end=True)
                await stream.recv_message()
    assert (error.value.status, error.value.message, error.value.details) == (Status.ABORTED, "no", b"d")
    assert dict(stream.trailing_metadata) == {"why": "because"}


async def test_responses_are_compressed_for_clients_that_accept_it() -> None:
    frames: list[bytes] = []

    async def fallback(call: RawCall) -> None:
        response = await inner.unary_raw(call.headers, await call.receive_frame() or b"")
        frames.append(response.frame or b"")
        await call.respond(response.headers, response.frame, response.trailers)

    behind = Server([Service()], compression="gzip")
    async with connected(behind) as inner, connected(Server(fallback=fallback)) as channel:
        assert await unary(channel, "Echo", b"a" * 10_000) == b"a" * 10_000
    assert frames[0][0] == 1
    assert len(frames[0]) < 200


# --- raw calls


async def test_a_proxy_passes_everything_on_undecoded() -> None:
    async def fallback(call: RawCall) -> None:
        async with inner.open_raw(call.headers) as upstream, trio.open_nursery() as nursery:

            async def requests() -> None:
                while (frame := await call.receive_frame()) is not None:
                    await upstream.send_frame(frame)
                await upstream.end()

            nursery.start_soon(requests)
            headers = await upstream.headers()
            if not upstream.has_ended:
                await call.send_headers(headers)
            while (frame := await upstream.receive_frame()) is not None:
                await call.send_frame(frame)
            await call.send_trailers(upstream.trailers)
            nursery.cancel_scope.cancel()

    async def chat(stream: Any) -> None:
        await stream.send_initial_metadata(metadata={"seen": stream.metadata["who"]})
        async for message in stream:
            await stream.send_message(Raw(message * 2))
        raise GRPCError(Status.OUT_OF_RANGE, "enough", b"\x01")

    behind = Server([Service(Chat=(chat, CHAT))])
    async with connected(behind) as inner, connected(Server(fallback=fallback)) as channel:
        assert await unary(channel, "Echo", b"through") == b"through"
        with pytest.raises(GRPCError) as error:
            async with request(channel, "Chat", CHAT, metadata={"who": "me"}) as stream:
                await stream.send_message(Raw(b"ab"))
                assert await stream.recv_message() == b"abab"
                assert stream.initial_metadata["seen"] == "me"
                await stream.end()
                await stream.recv_message()
        assert (error.value.status, error.value.message, error.value.details) == (
            Status.OUT_OF_RANGE,
            "enough",
            b"\x01",
        )
        with pytest.raises(GRPCError, match="unknown method"):
            await unary(channel, "Unknown")


async def test_a_fallback_that_says_nothing_is_internal() -> None:
    async def fallback(_call: RawCall) -> None:
        pass

    async with connected(Server(fallback=fallback)) as channel:
        with pytest.raises(GRPCError, match="without a status"):
            await unary(channel, "Anything")


async def test_two_tasks_cannot_read_the_same_call() -> None:
    async def handler(stream: Any) -> None:
        stream.nursery.start_soon(stream.recv_message)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.recv_message()
        stream.nursery.cancel_scope.cancel()
        await stream.send_message(Raw(b"ok"))

    async with (
        connected(Server([Service(Two=(handler, UPLOAD))])) as channel,
        request(channel, "Two", UPLOAD) as stream,
    ):
        await stream.send_request()
        assert await stream.recv_message() == b"ok"
        await stream.end()


# --- sizes


async def test_messages_larger_than_every_window_pass() -> None:
    limits = Limits(stream_window=1000, connection_window=65_535)
    async with connected(Server([Service()], limits=limits), limits=limits) as channel:
        payload = bytes(range(256)) * 2000
        assert await unary(channel, "Echo", payload) == payload


async def test_a_message_over_the_limit_is_resource_exhausted_on_either_side() -> None:
    small = Limits(message_size=1000)
    async with connected(Server([Service()], limits=small)) as channel:
        with pytest.raises(GRPCError) as error:
            await unary(channel, "Echo", bytes(1001))
        assert error.value.status is Status.RESOURCE_EXHAUSTED
        assert await unary(channel, "Echo", bytes(1000)) == bytes(1000)
    async with connected(Server([Service()]), limits=small) as channel:
        with pytest.raises(GRPCError) as error:
            await unary(channel, "Echo", bytes(1001))
        assert error.value.status is Status.RESOURCE_EXHAUSTED
        assert await unary(channel, "Echo", bytes(1000)) == bytes(1000)


async def test_a_reader_that_does_not_read_stops_the_writer(autojump_clock: MockClock) -> None:
    """Back-pressure reaches the producer, through both windows, and is lifted by reading."""
    produced = 0

    async def download(stream: Any) -> None:
        nonlocal produced
        for _ in range(100):
            await stream.send_message(Raw(bytes(50_000)))
            produced += 1

    limits = Limits(stream_window=200_000)
    async with (
        connected(Server([Service(Download=(download, DOWNLOAD))]), limits=limits) as channel,
        request(channel, "Download", DOWNLOAD) as stream,
    ):
        await stream.send_message(Raw(b""), end=True)
        await stream.recv_initial_metadata()
        await trio.sleep(60)
        assert produced == 3  # the fourth does not fit the window any more
        assert len([message async for message in stream]) == 100
        assert produced == 100


async def test_keepalive_options_do_no_harm_to_a_healthy_connection(autojump_clock: MockClock) -> None:
    async def slow(stream: Any) -> None:
        await trio.sleep(1000)
        await echo_once(stream)

    alive = KeepAlive(interval=10, patience=5, when_idle=True)
    server = Server([Service(Slow=(slow, UPLOAD))], keepalive=alive)
    async with connected(server, keepalive=KeepAlive(interval=30, patience=5)) as channel:
        assert await unary(channel, "Slow", b"x") == b"x"
        assert server.connections == 1
