"""A node as a process whose files change: what is written is what it goes by, without a restart."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import grpc
import pytest
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import dapr_pb2_grpc, metadata_pb2, pubsub_pb2, state_pb2
from support.processes import Node, node
from support.redis_servers import RedisServer, find_redis_server, redis_server

RELOADED = "Resources reloaded; components changed: "
NOT_RELOADED = "the resources are not reloaded: "


def component(name: str, kind: str, **metadata: str) -> str:
    items = ", ".join(f"{{name: {key}, value: '{value}'}}" for key, value in metadata.items())
    return f"""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name}}}
spec: {{type: {kind}, version: v1, metadata: [{items}]}}
"""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if find_redis_server() is None:
        pytest.skip("redis-server is not installed")
    with redis_server(tmp_path, persistent=True) as server:
        yield server


@pytest.fixture
def hangups() -> Iterator[None]:
    """Nodes started here get hangups, although this run may ignore them: under nohup it does, and so do its
    children.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextmanager
def calling(running: Node) -> Iterator[dapr_pb2_grpc.DaprStub]:
    with grpc.insecure_channel(running.address) as channel:
        yield dapr_pb2_grpc.DaprStub(channel)


def save(dapr: dapr_pb2_grpc.DaprStub, value: bytes, key: str = "k") -> None:
    item = common_pb2.StateItem(key=key, value=value)
    dapr.SaveState(state_pb2.SaveStateRequest(store_name="store", states=[item]), timeout=30)


def read(dapr: dapr_pb2_grpc.DaprStub) -> bytes:
    request = state_pb2.GetStateRequest(store_name="store", key="k")
    return bytes(dapr.GetState(request, timeout=30).data)


def folder_of(home: Path, app_id: str) -> Path:
    return home / f"resources-{app_id}"


@pytest.mark.redis
def test_a_store_is_swapped_and_swapped_back_under_load(tmp_path: Path, redis: RedisServer) -> None:
    """From SQLite to Redis, which brings asyncio into a node that began without it. No call fails."""
    sqlite = component("store", "state.sqlite", connectionString=str(tmp_path / "store.db"))
    host = component("store", "state.redis", redisHost=redis.address)
    with node("app", tmp_path, resources=sqlite) as running, calling(running) as dapr:
        file = folder_of(tmp_path, "app") / "resources.yaml"
        over = Event()

        def load() -> int:
            count = 0
            while not over.is_set():
                save(dapr, b"x", key=f"load-{count % 10}")
                count += 1
            return count

        with ThreadPoolExecutor() as pool:
            loads = [pool.submit(load) for _ in range(4)]
            try:
                save(dapr, b"in sqlite")
                at = 0
                for round_number in range(3):
                    file.write_text(host)
                    at = running.process.wait_for("Component closed: store (state.sqlite", after=at)
                    if not round_number:
                        assert read(dapr) == b""
                        save(dapr, b"in redis")
                    assert read(dapr) == b"in redis"
                    file.write_text(sqlite)
                    at = running.process.wait_for("Component closed: store (state.redis", after=at)
                    assert read(dapr) == b"in sqlite"
            finally:
                over.set()
            assert all(one.result() > 0 for one in loads)
        assert running.process.end() == 0


def test_files_that_come_and_go_and_mistakes_in_them(tmp_path: Path) -> None:
    good = component("store", "state.in-memory")
    with node("app", tmp_path, resources=good) as running, calling(running) as dapr:
        folder, lines = folder_of(tmp_path, "app"), running.process
        save(dapr, b"1")
        at = 0
        (folder / "notes.txt").write_text("not a resource")
        (folder / "broken.yaml").write_text(component("other", "state.in-memory", plaice="x"))
        at = lines.wait_for(NOT_RELOADED, after=at)
        assert "broken.yaml:5: spec.metadata.plaice: unknown metadata name" in lines.lines[at]
        (folder / "broken.yaml").write_text("apiVersion: [")
        at = lines.wait_for(NOT_RELOADED, after=at + 1)
        assert read(dapr) == b"1"
        (folder / "broken.yaml").write_text(component("other", "state.in-memory"))
        at = lines.wait_for(RELOADED + "other", after=at)
        os.replace(folder / "broken.yaml", folder / "renamed.yaml")  # one and the same component
        at = lines.wait_for(RELOADED + "none", after=at + 1)
        (folder / "renamed.yaml").unlink()
        lines.wait_for(RELOADED + "other", after=at + 1)
        assert read(dapr) == b"1"  # the one that did not change has been the same all along
        found = dapr.GetMetadata(metadata_pb2.GetMetadataRequest())
        assert [one.name for one in found.registered_components] == ["store"]
        assert list(found.enabled_features) == ["HotReload"]
        assert running.process.end() == 0


def test_a_folder_that_is_replaced_goes_on_being_watched(tmp_path: Path) -> None:
    """As Kubernetes does with the files of a ConfigMap: a link is turned to another folder."""
    first, second, link = tmp_path / "first", tmp_path / "second", tmp_path / "link"
    for folder, name in ((first, "one"), (second, "two")):
        folder.mkdir()
        (folder / "store.yaml").write_text(component(name, "state.in-memory"))
    link.symlink_to(first)
    with node("app", tmp_path, "--resources-path", str(link)) as running:
        new = tmp_path / "new"
        new.symlink_to(second)
        os.replace(new, link)
        at = running.process.wait_for(RELOADED + "one, two")
        shutil.rmtree(second)
        at = running.process.wait_for("no such file or folder", after=at)
        second.mkdir()
        (second / "store.yaml").write_text(component("three", "state.in-memory"))
        running.process.wait_for(RELOADED + "three", after=at)


@pytest.mark.usefixtures("hangups")
def test_a_hangup_has_the_files_read_again(tmp_path: Path) -> None:
    with node("app", tmp_path, resources=component("store", "state.in-memory")) as running:
        running.process.popen.send_signal(signal.SIGHUP)
        running.process.wait_for(RELOADED + "none")
        assert running.process.end() == 0


@pytest.mark.usefixtures("hangups")
def test_a_configuration_switches_it_off(tmp_path: Path) -> None:
    off = """
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: settings}
spec: {features: [{name: HotReload, enabled: false}]}
"""
    with node("app", tmp_path, resources=component("store", "state.in-memory") + off) as running:
        file = folder_of(tmp_path, "app") / "resources.yaml"
        file.write_text(component("other", "state.in-memory") + off)
        running.process.popen.send_signal(signal.SIGHUP)
        running.process.wait_for("Received SIGHUP")
        with calling(running) as dapr:
            found = dapr.GetMetadata(metadata_pb2.GetMetadataRequest())
            assert [one.name for one in found.registered_components] == ["store"]
            assert list(found.enabled_features) == []
        assert not [line for line in running.process.lines if RELOADED in line]


@pytest.mark.redis
def test_a_broker_that_comes_late_serves_streams(tmp_path: Path, redis: RedisServer) -> None:
    """Publishing and a stream over a component that needs the late asyncio loop."""
    memory = component("store", "state.in-memory")
    broker = component("pubsub", "pubsub.redis", redisHost=redis.address)
    with node("app", tmp_path, resources=memory) as running, calling(running) as dapr:
        (folder_of(tmp_path, "app") / "pubsub.yaml").write_text(broker)
        running.process.wait_for(RELOADED + "pubsub")
        over = Event()

        def requests() -> Iterator[pubsub_pb2.SubscribeTopicEventsRequestAlpha1]:
            initial = pubsub_pb2.SubscribeTopicEventsRequestInitialAlpha1(pubsub_name="pubsub", topic="t")
            yield pubsub_pb2.SubscribeTopicEventsRequestAlpha1(initial_request=initial)
            over.wait(60)

        stream = dapr.SubscribeTopicEventsAlpha1(requests(), timeout=60)
        assert next(stream).HasField("initial_response")
        dapr.PublishEvent(pubsub_pb2.PublishEventRequest(pubsub_name="pubsub", topic="t", data=b"1"))
        assert next(stream).event_message.data == b"1"
        over.set()
        stream.cancel()
        assert running.process.end() == 0
