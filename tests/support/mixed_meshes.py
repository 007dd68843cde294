"""Two daprd and two meshnode in one mesh, each with an application of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
from attrs import frozen
from support.daprd_servers import daprd
from support.mesh_apps import BIG, MeshApp, mesh_app
from support.processes import node

__all__ = ["Member", "mesh"]

NAMES = ("daprd-1", "daprd-2", "node-1", "node-2")


@frozen
class Member:
    """A sidecar of the mesh: the channel to its API, and its application."""

    app_id: str
    channel: grpc.Channel
    app: MeshApp


@contextmanager
def mesh(home: Path, configuration: str, names: tuple[str, ...] = NAMES) -> Iterator[dict[str, Member]]:
    """All members by app id; a name tells which sidecar it is. They are up when the context is entered."""

    def start(name: str) -> Member:
        with ExitStack() as own:
            app, port = own.enter_context(mesh_app())
            if name.startswith("daprd"):
                at = own.enter_context(daprd(name, home, configuration=configuration, app_port=port)).address
            else:
                env = {"DAPR_HOST_IP": "127.0.0.1"}
                at = own.enter_context(
                    node(name, home, resources=configuration, app_port=port, env=env)
                ).address
            channel = own.enter_context(grpc.insecure_channel(at, options=BIG))
            stacks.append(own.pop_all())
            return Member(name, channel, app)

    stacks: list[ExitStack] = []
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        stack.callback(close, stacks)
        yield {one.app_id: one for one in threads.map(start, names)}


def close(stacks: list[ExitStack]) -> None:
    for one in stacks:
        one.close()
