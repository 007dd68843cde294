"""Several applications in one `meshnode run`: started together, ended together.

An application that fails ends the run with its exit code; one that ends with 0 leaves the others running,
unless it is the one the run lasts for (`--until`). One application is the simplest case of several.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import IO, Any

import trio
from attrs import frozen

from meshnode.cli._appenv import app_environment
from meshnode.cli._errors import CliError
from meshnode.cli._folders import state_dir
from meshnode.cli._healthz import HealthCheck, serve_connection
from meshnode.cli._lines import Console, log_files
from meshnode.cli._plan import AppPlan
from meshnode.cli._process import Command, Launch, launch
from meshnode.cli._supervise import AppRun, Stop, supervise

__all__ = ["Mesh", "run_mesh"]

OpenHealth = Callable[[str], Any]


@frozen
class Mesh:
    """What a run needs beside its plans. Everything that touches the outside can be replaced."""

    plans: Sequence[AppPlan]
    console: Console
    say: Callable[[str], None]
    open_health: OpenHealth
    """From a node's address to an async context manager with its health check."""
    until: str = ""
    launch: Launch = launch


async def run_mesh(mesh: Mesh, stop: Stop) -> int:
    """Run all plans to their end; the exit code of the run."""
    codes: dict[str, int] = {}
    stops = {plan.app_id: Stop() for plan in mesh.plans}

    async def one(index: int, plan: AppPlan, files: Callable[[str], IO[bytes]]) -> None:
        async with _listening(plan) as listeners:
            run = _app_run(mesh, index, plan, files, listeners)
            code = await supervise(run, mesh.launch, stops[plan.app_id])
        # How an application ends that had to go because another one went says nothing about the run.
        codes[plan.app_id] = 0 if stops[plan.app_id].from_inside else code
        if codes[plan.app_id] or plan.app_id == mesh.until:
            for other in stops.values():
                other.set(0)

    async def pass_on() -> None:
        await stop.wait()
        for other in stops.values():
            other.set(stop.number)

    with _files(mesh.plans) as files:
        async with trio.open_nursery() as outer:
            outer.start_soon(pass_on)
            async with trio.open_nursery() as nursery:
                for index, plan in enumerate(mesh.plans):
                    nursery.start_soon(one, index, plan, files)
            outer.cancel_scope.cancel()
    return next((code for code in codes.values() if code), 0)


@asynccontextmanager
async def _listening(plan: AppPlan) -> AsyncIterator[list[trio.SocketListener]]:
    try:
        listeners = await trio.open_tcp_listeners(plan.http_port, host="127.0.0.1")
    except OSError as error:
        raise CliError(
            f"{plan.app_id}: port {plan.http_port} of the health address is taken: {error.strerror}",
            "choose another with --dapr-http-port, or leave it out",
        ) from None
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()


def _app_run(
    mesh: Mesh,
    index: int,
    plan: AppPlan,
    files: Callable[[str], IO[bytes]],
    listeners: Sequence[trio.SocketListener],
) -> AppRun:
    http_port = int(listeners[0].socket.getsockname()[1])
    several = len(mesh.plans) > 1
    suffix = f" - {plan.app_id}" if several else ""
    logs = {kind: files(f"{plan.app_id}-{kind}") for kind in ("node", "app")}

    def writer(kind: str, destination: str, color: int) -> Callable[[bytes], None]:
        file = logs[kind] if destination != "console" else None
        return mesh.console.writer(f"{kind.upper()}{suffix}", color, file, destination != "file")

    def app_command(started: Mapping[str, Any]) -> Command:
        env = app_environment(
            os.environ,
            app_id=plan.app_id,
            grpc_address=started["grpc"][0],
            http_port=http_port,
            app_port=plan.app_port,
            app_protocol=plan.app_protocol,
            app_channel_address=plan.app_channel_address,
            extra=plan.env,
        )
        return Command(plan.command, env, writer("app", plan.app_logs, 2 * index), cwd=plan.cwd)

    return AppRun(
        app_id=plan.app_id,
        node=_node_command(plan, http_port, logs, writer("node", plan.node_logs, 2 * index + 1)),
        app=app_command if plan.command else None,
        health=_health_server(listeners, mesh.open_health),
        say=mesh.say,
        has_port=plan.app_port is not None,
        tell_notes=plan.node_logs == "file",
        app_grace=plan.app_grace,
        node_grace=plan.node_grace,
    )


def _node_command(
    plan: AppPlan, http_port: int, logs: Mapping[str, IO[bytes]], write: Callable[[bytes], None]
) -> Command:
    import json

    info = {
        "pid": os.getpid(),
        "http_port": http_port,
        "command": plan.command,
        "node_log": str(logs["node"].name) if plan.node_logs != "console" else "",
        "app_log": str(logs["app"].name) if plan.app_logs != "console" and plan.command else "",
    }
    argv = (sys.executable, "-m", "meshnode", "node", *plan.node_args, "--run-info", json.dumps(info))
    return Command(argv, os.environ, write, reports=True)


def _health_server(listeners: Sequence[trio.SocketListener], open_health: OpenHealth) -> Any:
    @asynccontextmanager
    async def serving(address: str) -> AsyncIterator[None]:
        async with open_health(address) as check, trio.open_nursery() as nursery:
            nursery.start_soon(_serve, listeners, check)
            yield
            nursery.cancel_scope.cancel()

    return serving


async def _serve(listeners: Sequence[trio.SocketListener], check: HealthCheck) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await serve_connection(stream, check)

    await trio.serve_listeners(handler, list(listeners))


def _files(plans: Sequence[AppPlan]) -> AbstractContextManager[Callable[[str], IO[bytes]]]:
    names = [f"{plan.app_id}-{kind}" for plan in plans for kind in ("node", "app")]
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    return log_files(state_dir() / "logs", names, stamp)
