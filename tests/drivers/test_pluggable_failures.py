"""Pluggable components when things break: processes that are killed, stopped and brought back, metadata that
is refused, sockets that are none. The component is the one on Dapr's own SDK, which refuses every call before
its `Init`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from concurrent import futures
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
import trio
from support.components import go_component, open_component, registry_at, socket_folder, until_back
from support.processes import wait_until

from meshnode.errors import (
    BulkStateError,
    ComponentError,
    ComponentUnavailable,
    ConfigError,
    EtagInvalid,
    EtagMismatch,
    PubSubError,
    Status,
)
from meshnode.interfaces import (
    BindingRequest,
    BulkGetResult,
    DeleteRequest,
    DriverContext,
    Feature,
    GetRequest,
    InputBinding,
    Outcome,
    OutputBinding,
    PublishRequest,
    SetRequest,
    SubscribeRequest,
)


@pytest.fixture
def folder():
    with socket_folder() as path:
        yield path


async def test_a_store_that_is_killed_and_comes_back(folder, caplog):
    caplog.set_level(logging.INFO)
    with go_component(folder) as process:
        async with open_component(folder, "state.gomem") as store:
            await store.set(SetRequest("k", b"1"))
            process.end(signal.SIGKILL)
            for call in (partial(store.get, GetRequest("k")), partial(store.set, SetRequest("k", b"2"))):
                with pytest.raises(ComponentUnavailable) as caught:
                    await call()
                assert caught.value.code is Status.UNAVAILABLE
            with pytest.raises(ComponentUnavailable):
                await store.bulk_set([SetRequest("a", b"1"), SetRequest("b", b"1", etag="1")])
            with pytest.raises(ComponentUnavailable):
                await store.ping()
            with go_component(folder):
                assert await until_back(partial(store.get, GetRequest("k"))) is None
                await store.set(SetRequest("k", b"3"))
                assert (await store.get(GetRequest("k"))).data == b"3"
    assert "is lost" in caplog.text
    assert "is back" in caplog.text


async def test_a_subscription_ends_with_its_process_and_the_next_one_lives(folder):
    came, news = [], trio.Event()

    async def deliver(message):
        came.append(message.data)
        news.set()
        return Outcome.ACK

    with go_component(folder) as process:
        async with open_component(folder, "pubsub.gomem") as broker:

            async def subscribe(*, task_status=trio.TASK_STATUS_IGNORED):
                stop = trio.Event()
                await broker.subscribe(SubscribeRequest("t"), deliver, stop, task_status=task_status)

            async with trio.open_nursery() as nursery:

                async def first(*, task_status):
                    with pytest.raises(ComponentUnavailable) as caught:
                        await subscribe(task_status=task_status)
                    assert caught.value.code is Status.UNAVAILABLE

                await nursery.start(first)
                process.end(signal.SIGKILL)
            with pytest.raises(ComponentUnavailable):
                await subscribe()
            with go_component(folder):
                await until_back(partial(broker.publish, PublishRequest("t", b"1")))
                async with trio.open_nursery() as nursery:
                    await nursery.start(subscribe)
                    with trio.fail_after(20):
                        await news.wait()
                    nursery.cancel_scope.cancel()
    assert came == [b"1"]


def pause(process):
    """SIGSTOP; returns when it does nothing any more, in none of its threads."""
    process.popen.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{process.popen.pid}/task")

    def states():
        return {(one / "stat").read_text().rpartition(")")[2].split()[0] for one in threads.iterdir()}

    wait_until(lambda: states() == {"T"})


async def test_a_stopped_process_and_a_call_that_is_cancelled(folder):
    with go_component(folder) as process:
        async with open_component(folder, "state.gomem") as store:
            pause(process)
            try:
                with trio.move_on_after(0.2) as scope:
                    await store.set(SetRequest("k", b"1"))
                assert scope.cancelled_caught
            finally:
                process.popen.send_signal(signal.SIGCONT)
            # Whether the component still does what it was not waited for is its own affair, so another key.
            await store.set(SetRequest("other", b"2"))
            assert (await store.get(GetRequest("other"))).data == b"2"


async def test_opening_while_nobody_serves(folder):
    with go_component(folder) as process:
        registry = await registry_at(folder)
        process.end(signal.SIGKILL)
    driver = registry.driver("state.gomem")
    with pytest.raises(ComponentUnavailable) as caught:
        async with driver.open(driver.metadata(), DriverContext("c", "app")):
            raise AssertionError("nobody serves")
    assert "refused" in str(caught.value)


async def test_metadata_that_the_component_refuses(folder):
    with go_component(folder):
        for type_ in ("state.gomem", "pubsub.gomem", "bindings.gomem", "secretstores.gosecrets"):
            with pytest.raises(ComponentError, match="refused: no") as caught:
                async with open_component(folder, type_, refuse="no"):
                    raise AssertionError("refused metadata was accepted")
            assert caught.value.code is Status.INVALID_ARGUMENT


async def test_etags_and_what_they_are_told_by(folder):
    with go_component(folder):
        async with open_component(folder, "state.gomem") as store:
            await store.set(SetRequest("k", b"1"))
            with pytest.raises(EtagMismatch, match="another version"):
                await store.set(SetRequest("k", b"2", etag="99"))
            with pytest.raises(EtagInvalid, match="looks like this"):
                await store.delete(DeleteRequest("k", etag="!"))
            writes = [SetRequest("a", b"1"), SetRequest("k", b"2", etag="99"), SetRequest("b", b"1")]
            with pytest.raises(BulkStateError) as caught:
                await store.bulk_set(writes)
            assert set(caught.value.failures) == {1}
            assert isinstance(caught.value.failures[1], EtagMismatch)
            found = await store.bulk_get([GetRequest(key) for key in ("a", "b", "none", "k")], 2)
            assert [one.result and one.result.data for one in found] == [b"1", b"1", None, b"1"]
            assert found[2] == BulkGetResult("none")


async def test_features_are_those_that_are_known_and_served(folder):
    with go_component(folder):
        async with open_component(folder, "state.gomem") as store:
            assert store.features == {Feature.ETAG, Feature.TRANSACTIONAL, Feature.TTL}


async def test_components_of_one_process_are_told_apart(folder):
    with go_component(folder):
        async with (
            open_component(folder, "state.gomem", "one") as one,
            open_component(folder, "state.gomem", "two") as two,
            open_component(folder, "state.gomem", "zwölf") as odd,
        ):
            await one.set(SetRequest("k", b"1"))
            assert await two.get(GetRequest("k")) is None
            assert await odd.get(GetRequest("k")) is None
        async with open_component(folder, "state.gomem", "one") as again:
            assert (await again.get(GetRequest("k"))).data == b"1"


async def test_a_refused_publication_has_the_components_status(folder):
    with go_component(folder):
        async with open_component(folder, "pubsub.gomem") as broker:
            with pytest.raises(PubSubError, match="refused") as caught:
                await broker.publish(PublishRequest("t", b"1", metadata={"refuse": "yes"}))
            assert caught.value.code is Status.RESOURCE_EXHAUSTED


async def test_directions_of_a_binding(folder):
    with go_component(folder):
        async with open_component(folder, "bindings.gomem", direction="Input") as binding:
            assert isinstance(binding, InputBinding)
            assert not isinstance(binding, OutputBinding)
        async with open_component(folder, "bindings.gomem", direction="output") as binding:
            assert not isinstance(binding, InputBinding)
            assert list(binding.operations) == ["create", "echo"]
            assert (await binding.invoke(BindingRequest("echo", b"x"))).data == b"x"
        async with open_component(folder, "bindings.gomem", direction="input, output") as binding:
            assert isinstance(binding, InputBinding)
            assert isinstance(binding, OutputBinding)


# --- sockets that are none


@contextmanager
def silent(path):
    """Accepts and says nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


@contextmanager
def talking_nonsense(path):
    def talk():
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"220 ready\r\n" * 10)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def without_reflection(path):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


async def test_sockets_that_are_no_components_are_named_and_left_out(folder, caplog):
    (folder / "file.sock").write_text("no socket")
    (folder / "sub").mkdir()
    os.symlink(folder / "nowhere", folder / "dangling.sock")
    with silent(folder / "stale.sock"):
        pass
    with (
        silent(folder / "silent.sock"),
        talking_nonsense(folder / "nonsense.sock"),
        without_reflection(folder / "mute.sock"),
        go_component(folder),
    ):
        registry = await registry_at(folder)
    assert "state.gomem" in registry.types("state")
    assert not [one for one in registry.types() if one.endswith((".stale", ".silent", ".nonsense", ".mute"))]
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for name, words in {
        "file": "it is no socket",
        "dangling": "it is no socket",
        "stale": "refused",
        "silent": "no answer within 5 s",
        "nonsense": "",
        "mute": "",
    }.items():
        lines = [line for line in warned if f"/{name}.sock" in line]
        assert len(lines) == 1, warned
        assert words in lines[0]


async def test_a_type_that_nobody_serves_names_the_folder(folder):
    with pytest.raises(ConfigError, match=f"no socket in {folder} serves it"):
        (await registry_at(folder)).driver("state.gomem")
    with pytest.raises(ConfigError) as caught:
        (await registry_at(folder / "missing")).driver("lock.gomem")
    assert "socket" not in str(caught.value)
