"""`meshnode status`: how a node is doing, and which requests are alive in it."""

from __future__ import annotations

import time
from typing import Any

import rich_click as click

from meshnode.cli._client import Target, ask, complete_app_ids, token_metadata
from meshnode.cli._output import Column, Output, ago
from meshnode.cli._verb import Verb, output

__all__ = ["command"]

_STATUS = (
    Column("app_id", "App id"),
    Column("namespace", "Namespace"),
    Column("state", "State"),
    Column("app_address", "Application"),
    Column("app_healthy", "App healthy"),
    Column("grpc_address", "gRPC"),
    Column("internal_address", "Internal"),
    Column("uptime", "Up for", ago),
    Column("in_flight", "In flight"),
    Column("requests_total", "Requests"),
    Column("connections", "Connections"),
    Column("version", "Version"),
    Column("pid", "Pid"),
)
_COMPONENTS = (
    Column("name", "COMPONENT"),
    Column("type", "TYPE"),
    Column("version", "VERSION"),
    Column("state", "STATE"),
    Column("message", "MESSAGE"),
)
_REQUESTS = (
    Column("id", "ID"),
    Column("method", "METHOD"),
    Column("peer", "FROM"),
    Column("target", "TO"),
    Column("started_ago", "FOR", lambda seconds: f"{seconds:.3f}s"),
    Column("deadline_in", "DEADLINE IN", lambda seconds: f"{seconds:.3f}s"),
    Column("attempts", "ATTEMPTS", lambda attempts: f"{len(attempts)} ({attempts[-1]['state']})"),
    Column("scopes", "SCOPES", " > ".join),
)


@click.command("status", cls=Verb)
@click.argument("app_id", required=False, default="", shell_complete=complete_app_ids)
@click.option(
    "-r", "--requests", is_flag=True, help="The requests alive right now, with attempts and scopes."
)
@click.option(
    "--filter", "wanted", default="", help="Only requests whose method, peer or target contains this."
)
@click.option("--wait", is_flag=True, help="Wait until the node reports that it serves.")
@click.option("--address", default="", metavar="HOST:PORT", help="The node's gRPC address.")
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS")
def command(app_id: str, requests: bool, wanted: str, wait: bool, address: str, timeout: float) -> None:
    """Show how the node of APP_ID is doing."""
    target = Target(app_id, address, timeout)
    if wait:
        ask(target, _until_serving)
    if requests:
        _show_requests(output(), target, wanted)
    else:
        _show_status(output(), target)


def _show_status(out: Output, target: Target) -> None:
    from meshnode.wire.meshnode.admin import v1 as admin

    async def call(channel: Any) -> Any:
        return await admin.AdminStub(channel).get_status(metadata=token_metadata())

    status = ask(target, call)
    components = [
        {"name": c.name, "type": c.type, "version": c.version, "state": c.state, "message": c.message}
        for c in status.components
    ]
    row = {column.key: getattr(status, column.key, None) for column in _STATUS} | {
        "state": _state_name(status.state),
        "started_at": status.started_at,
        "uptime": round(time.time() - status.started_at, 1),
        "components": components,
    }
    out.item(row, _STATUS)
    if out.for_people:
        out.text("")
        out.rows(components, _COMPONENTS, empty="no components")


def _show_requests(out: Output, target: Target, wanted: str) -> None:
    from meshnode.wire.meshnode.admin import v1 as admin

    async def call(channel: Any) -> Any:
        request = admin.ListRequestsRequest(filter=wanted)
        return await admin.AdminStub(channel).list_requests(request, metadata=token_metadata())

    rows = [
        {
            "id": live.id,
            "method": live.method,
            "peer": live.peer,
            "target": live.target,
            "started_ago": live.started_ago,
            "deadline_in": live.deadline_in,
            "attempts": [
                {
                    "number": attempt.number,
                    "state": attempt.state,
                    "started_ago": attempt.started_ago,
                    "waited": attempt.waited,
                    "code": attempt.code,
                    "message": attempt.message,
                }
                for attempt in live.attempts
            ],
            "scopes": list(live.scopes),
        }
        for live in ask(target, call).requests
    ]
    out.rows(rows, _REQUESTS, empty="no request is alive")


async def _until_serving(channel: Any) -> None:
    from meshnode.wire.grpc.health import v1 as health

    serving = health.HealthCheckResponseServingStatus.SERVING
    async with health.HealthStub(channel).watch(health.HealthCheckRequest()) as replies:
        async for reply in replies:
            if reply.status is serving:
                return


def _state_name(state: Any) -> str:
    return str(state.name or "").removeprefix("NODE_STATE_").lower()
