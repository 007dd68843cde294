"""A real daprd (1.18.0) as a process, to stand beside a meshnode: started for a test, ended by its process
id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from dapr.proto.runtime.v1 import dapr_pb2_grpc, metadata_pb2
from support.install_daprd import find_daprd
from support.processes import Process, process, wait_until
from support.redis_servers import free_port

__all__ = ["Daprd", "daprd"]


class Daprd:
    """A daprd that is ready. `address` is its gRPC API's, as a channel takes it; `internal` where other
    sidecars call it.
    """

    def __init__(self, running: Process, port: int, internal: int) -> None:
        self.process = running
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.internal = f"127.0.0.1:{internal}"


@contextmanager
def daprd(
    app_id: str,
    home: Path,
    *flags: str,
    resources: str = "",
    configuration: str = "",
    app_port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Daprd]:
    """`resources` and `configuration` are YAML texts; a gRPC application is at `app_port`. Without a
    configuration there is no name resolution but mDNS, which it does not have: give one with `sqlite`.
    """
    program = find_daprd()
    assert program is not None, "daprd is not installed"
    ports = [free_port(below=32000) for _ in range(5)]  # none that the system gives to others meanwhile
    api, internal, http, metrics, public = ports
    folder = home / f"daprd-{app_id}"
    folder.mkdir(exist_ok=True)
    (folder / "resources.yaml").write_text(resources)
    config = home / f"daprd-{app_id}-config.yaml"
    config.write_text(configuration)
    command = [
        str(program), "--app-id", app_id, "--resources-path", str(folder), "--mode", "standalone",
        "--dapr-grpc-port", str(api), "--dapr-internal-grpc-port", str(internal),
        "--dapr-http-port", str(http), "--metrics-port", str(metrics),
        "--dapr-public-port", str(public), "--log-level", "info",
        "--dapr-listen-addresses", "127.0.0.1", "--dapr-internal-grpc-listen-address", "127.0.0.1", *flags,
    ]  # fmt: skip
    if configuration:
        command += ["--config", str(config)]
    if app_port is not None:
        command += ["--app-port", str(app_port), "--app-protocol", "grpc"]
    surroundings = {"DAPR_HOST_IP": "127.0.0.1", **(env or {})}
    with process(command, env={**os.environ, **surroundings}) as running:
        made = Daprd(running, api, internal)
        running.wait_for("dapr initialized. Status: Running")
        with grpc.insecure_channel(made.address) as channel:
            stub: Any = dapr_pb2_grpc.DaprStub(channel)  # type: ignore[no-untyped-call]

            def answers() -> bool:
                try:
                    stub.GetMetadata(metadata_pb2.GetMetadataRequest(), timeout=5)
                except grpc.RpcError as error:
                    # Who may not ask has been answered, too.
                    return error.code() is not grpc.StatusCode.UNAVAILABLE
                return True

            try:
                wait_until(answers, what="daprd", seconds=60)
            except AssertionError as error:
                raise AssertionError(f"{error}; its output was:\n{running.output}") from None
        yield made
