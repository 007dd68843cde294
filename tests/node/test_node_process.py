"""A node as a process, seen from grpcio: health, reflection, limits, bad requests, sockets, TLS, shutdown,
and failures of what it depends on.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import actors_pb2, dapr_pb2, dapr_pb2_grpc, state_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from support.grpc_apps import METHOD, Gatekeeper, blob_app, call
from support.processes import Node, node, process, surroundings_of, wait_until
from support.redis_servers import RedisServer, find_redis_server, redis_server

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SAVE_STATE = "/dapr.proto.runtime.v1.Dapr/SaveState"
BIG = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@contextmanager
def connected(to: Node, **options: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(to.address, options=BIG, **options) as channel:
        yield channel


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request


def save(channel: grpc.Channel, value: bytes = b"v", store: str = "statestore", **options: Any) -> None:
    item = common_pb2.StateItem(key="k", value=value)
    request = state_pb2.SaveStateRequest(store_name=store, states=[item])
    dapr_pb2_grpc.DaprStub(channel).SaveState(request, **options)


def get(channel: grpc.Channel, store: str = "statestore", **options: Any) -> bytes:
    request = state_pb2.GetStateRequest(store_name=store, key="k")
    return bytes(dapr_pb2_grpc.DaprStub(channel).GetState(request, **options).data)


def alive(channel: grpc.Channel) -> None:
    assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == SERVING


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with nothing but its defaults, for the tests that leave it as they found it."""
    with node("plain", tmp_path_factory.mktemp("plain")) as running:
        yield running


# --- what every gRPC tool expects of a server


def test_health_and_reflection_as_grpcio_asks_for_them(plain: Node) -> None:
    with connected(plain) as channel:
        alive(channel)
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("dapr.proto.runtime.v1.Dapr", "meshnode.admin.v1.Admin"):
            assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            "dapr.proto.runtime.v1.Dapr",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "meshnode.admin.v1.Admin",
        }
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("dapr.proto.runtime.v1.Dapr")
        method = service.methods_by_name["SaveState"]
        assert [field.name for field in method.input_type.fields] == ["store_name", "states"]
        item = pool.FindMessageTypeByName("dapr.proto.common.v1.StateItem")
        assert item.fields_by_name["etag"].message_type.full_name == "dapr.proto.common.v1.Etag"
        with pytest.raises(KeyError):
            pool.FindMessageTypeByName("dapr.proto.common.v1.Nothing")


def test_health_is_watched_from_ready_to_draining(tmp_path: Path) -> None:
    with node("watched", tmp_path) as running, connected(running) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        running.process.popen.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        with pytest.raises(StopIteration):
            next(watch)
        assert running.process.popen.wait(15) == 0


def test_only_grpc_ports_listen(plain: Node) -> None:
    ours = {plain.port, int(plain.internal.rpartition(":")[2])}
    assert listening(plain.process.popen.pid) == ours
    with socket.create_connection(("127.0.0.1", plain.port), timeout=10) as connection:
        connection.sendall(b"GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"HTTP/1." not in answer
    with connected(plain) as channel:
        alive(channel)


def listening(pid: int) -> set[int]:
    """TCP ports on which a process listens, from what Linux tells about it."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed: it listens no more
            target = str(link.readlink())
            if target.startswith("socket:["):
                sockets.add(target[len("socket:[") : -1])
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in sockets:
                ports.add(int(words[1].rpartition(":")[2], 16))
    return ports


# --- bad requests


def test_a_message_that_is_too_long(plain: Node, tmp_path: Path) -> None:
    with connected(plain) as channel:
        save(channel, b"x" * (3 << 20))
        with pytest.raises(grpc.RpcError) as caught:
            save(channel, b"x" * (5 << 20))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        alive(channel)
    with node("roomy", tmp_path, "--max-body-size", "8Mi") as roomy, connected(roomy) as channel:
        save(channel, b"x" * (7 << 20))
        assert len(get(channel)) == 7 << 20
        with pytest.raises(grpc.RpcError) as caught:
            save(channel, b"x" * (9 << 20))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        alive(channel)


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x0a\x7fab", b"\x0a\x02\xff\xfe"])
def test_a_malformed_message(plain: Node, message: bytes) -> None:
    with connected(plain) as channel:
        with pytest.raises(grpc.RpcError, match="malformed request message: not a valid Save") as caught:
            channel.unary_unary(SAVE_STATE)(message)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        alive(channel)
    assert "Traceback" not in plain.process.output


def test_unknown_stores_and_methods(plain: Node) -> None:
    with connected(plain) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            save(channel, store="ghost")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(
            grpc.RpcError, match="missing dapr-callee-app-id or dapr-app-id metadata"
        ) as caught:
            channel.unary_unary(METHOD)(b"")
        assert caught.value.code() is grpc.StatusCode.UNKNOWN
        with pytest.raises(grpc.RpcError, match="this node has no actors") as caught:
            dapr_pb2_grpc.DaprStub(channel).InvokeActor(actors_pb2.InvokeActorRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_caller_that_speaks_something_else(plain: Node) -> None:
    for nonsense in (b"\x00" * 64, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64):
        with socket.create_connection(("127.0.0.1", plain.port), timeout=10) as connection:
            connection.sendall(nonsense)
            while connection.recv(65536):
                pass
    with connected(plain) as channel:
        alive(channel)


def test_the_token_from_the_environment(tmp_path: Path) -> None:
    with node("guarded", tmp_path, env={"DAPR_API_TOKEN": "s3cret"}) as running:
        with connected(running) as channel:
            with pytest.raises(grpc.RpcError, match="Unauthorized") as caught:
                save(channel)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            save(channel, metadata=[("dapr-api-token", "s3cret")])
            alive(channel)
        assert "s3cret" not in running.process.output


# --- sockets and TLS


def test_the_api_on_a_unix_socket(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    with node("local", tmp_path, "--unix-domain-socket", str(folder)) as running:
        path = folder / "dapr-local-grpc.socket"
        assert running.addresses == [f"unix:{path}"]
        with connected(running) as channel:
            save(channel, b"over a socket")
            assert get(channel) == b"over a socket"
        assert listening(running.process.popen.pid) == {int(running.internal.rpartition(":")[2])}
        assert running.process.end() == 0
    assert not path.exists()


def test_the_api_on_several_addresses(tmp_path: Path) -> None:
    flags = ["--dapr-listen-addresses", "127.0.0.1,127.0.0.2"]
    with node("wide", tmp_path, *flags) as running:
        assert running.addresses == [f"127.0.0.1:{running.port}", f"127.0.0.2:{running.port}"]
        for address in running.addresses:
            with grpc.insecure_channel(address) as channel:
                alive(channel)


def test_an_application_behind_tls(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    with (
        blob_app(echo, credentials=credentials) as port,
        node("secure", tmp_path, "--app-protocol", "grpcs", app_port=port) as running,
        connected(running) as channel,
    ):
        assert call(channel, b"over TLS", to="secure").result() == b"over TLS"


# --- shutdown


@contextmanager
def busy(tmp_path: Path, app: Gatekeeper, *flags: str) -> Iterator[tuple[Node, Any]]:
    """A node with one proxied call under way in its application."""
    with ExitStack() as stack:
        stack.callback(app.gate.set)
        port = stack.enter_context(blob_app(app))
        running = stack.enter_context(node("busy", tmp_path, *flags, app_port=port))
        channel = stack.enter_context(connected(running))
        future = call(channel, b"work", to="busy")
        assert app.entered.acquire(timeout=20)
        yield running, future


def test_sigterm_waits_for_what_is_in_flight(tmp_path: Path) -> None:
    app = Gatekeeper()
    with busy(tmp_path, app, "--dapr-graceful-shutdown-seconds", "600") as (running, future):
        running.process.popen.send_signal(signal.SIGTERM)
        running.process.wait_for("Shutting down: 1 requests in flight, 600 s grace")
        app.gate.set()
        assert future.result() == b"work"
        assert running.process.popen.wait(15) == 0
        running.process.wait_for(
            "Shutdown complete: 1 requests served, 1 of them while draining, 0 cancelled"
        )
        assert "Shutdown complete" in running.process.lines[-1]


def test_a_node_that_drains_takes_no_new_calls(tmp_path: Path) -> None:
    app = Gatekeeper()
    with busy(tmp_path, app, "--dapr-graceful-shutdown-seconds", "600") as (running, future):
        running.process.popen.send_signal(signal.SIGTERM)
        running.process.wait_for("Shutting down")

        def refuses() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", running.port)) != 0

        wait_until(refuses, what="a refused connection")
        app.gate.set()
        assert future.result() == b"work"


def test_when_grace_is_over_what_is_left_is_cancelled_and_named(tmp_path: Path) -> None:
    app = Gatekeeper()
    with busy(tmp_path, app, "--dapr-graceful-shutdown-seconds", "1") as (running, future):
        assert running.process.end() == 0
        with pytest.raises(grpc.RpcError):
            future.result()
        assert f"0 of them while draining, 1 cancelled ({METHOD})" in running.process.lines[-1]


def test_a_second_sigterm_waits_no_longer(tmp_path: Path) -> None:
    app = Gatekeeper()
    with busy(tmp_path, app, "--dapr-graceful-shutdown-seconds", "600") as (running, future):
        running.process.popen.send_signal(signal.SIGTERM)
        running.process.wait_for("Shutting down")
        assert running.process.end() == 0
        with pytest.raises(grpc.RpcError):
            future.result()
        running.process.wait_for("Received SIGTERM again")
        assert f"1 cancelled ({METHOD})" in running.process.lines[-1]


def test_the_shutdown_call_ends_the_process(tmp_path: Path) -> None:
    with node("ended", tmp_path) as running, connected(running) as channel:
        dapr_pb2_grpc.DaprStub(channel).Shutdown(dapr_pb2.ShutdownRequest())
        assert running.process.popen.wait(15) == 0


# --- what it depends on fails


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if find_redis_server() is None:
        pytest.skip("redis-server is not installed")
    with redis_server(tmp_path, persistent=True) as server:
        yield server


@pytest.mark.redis
def test_a_store_that_is_killed_and_comes_back(tmp_path: Path, redis: RedisServer) -> None:
    resources = f"""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: statestore}}
spec:
  type: state.redis
  version: v1
  metadata:
  - {{name: redisHost, value: "{redis.address}"}}
"""
    with node("orders", tmp_path, resources=resources) as running, connected(running) as channel:
        save(channel, b"1")
        redis.kill()
        for attempt in (lambda: save(channel, b"2", timeout=30), lambda: get(channel, timeout=30)):
            with pytest.raises(grpc.RpcError) as caught:
                attempt()
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert "state store statestore" in caught.value.details()
        alive(channel)
        redis.start()

        def saved() -> bool:
            try:
                save(channel, b"3", timeout=10)
            except grpc.RpcError:
                return False
            return True

        wait_until(saved, what="a store that answers again")
        assert get(channel) == b"3"
        assert running.process.end() == 0


def test_another_node_is_killed_and_comes_back(tmp_path: Path) -> None:
    with blob_app(echo) as port, node("caller", tmp_path) as caller, connected(caller) as channel:
        with node("callee", tmp_path, app_port=port) as callee:
            assert call(channel, b"1", to="callee").result() == b"1"
            assert callee.process.end(signal.SIGKILL) == -signal.SIGKILL
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, b"2", to="callee", timeout=30).result()
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)
        alive(channel)
        with node("callee", tmp_path, app_port=port):

            def answered() -> bool:
                try:
                    return bool(call(channel, b"3", to="callee", timeout=10).result() == b"3")
                except grpc.RpcError:
                    return False

            wait_until(answered, what="the new instance being found")


def test_an_application_that_is_restarted_is_found_again(tmp_path: Path) -> None:
    with ExitStack() as stack:
        with blob_app(echo) as port:
            running = stack.enter_context(node("app", tmp_path, app_port=port))
            channel = stack.enter_context(connected(running))
            assert call(channel, b"1", to="app").result() == b"1"
        with pytest.raises(grpc.RpcError):
            call(channel, b"2", to="app", timeout=30).result()
        stack.enter_context(blob_app(echo, port=port))

        def answered() -> bool:
            try:
                return bool(call(channel, b"3", to="app", timeout=10).result() == b"3")
            except grpc.RpcError:
                return False

        wait_until(answered, what="the application being found again")


def test_a_signal_while_starting_ends_the_start(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        folder = tmp_path / "resources"
        folder.mkdir()
        (folder / "store.yaml").write_text(f"""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: statestore}}
spec:
  type: state.redis
  version: v1
  initTimeout: 10m
  metadata:
  - {{name: redisHost, value: "{address}"}}
""")
        command = [sys.executable, "-m", "meshnode", "node", "--app-id", "slow", "--dapr-grpc-port", "0"]
        command += ["--resources-path", str(folder)]
        with process(command, env=surroundings_of(tmp_path)) as running:
            silent.settimeout(30)
            connection, _ = silent.accept()
            with connection:
                assert running.end() == 0
                running.wait_for("Received SIGTERM while starting")
