"""`meshnode breakers`: the circuit breakers of a node and their counts."""

from __future__ import annotations

from typing import Any

import rich_click as click

from meshnode.cli._client import Target, ask, complete_app_ids, token_metadata
from meshnode.cli._output import Column
from meshnode.cli._verb import Verb, output

__all__ = ["command"]

_COUNTS = (
    "requests",
    "total_successes",
    "total_failures",
    "consecutive_successes",
    "consecutive_failures",
)
_COLUMNS = (
    Column("name", "BREAKER"),
    Column("target", "TARGET"),
    Column("state", "STATE"),
    Column("half_open_in", "HALF-OPEN IN", lambda seconds: f"{seconds:.1f}s"),
    Column("requests", "REQUESTS"),
    Column("total_failures", "FAILURES"),
    Column("consecutive_failures", "IN A ROW"),
)


@click.command("breakers", cls=Verb)
@click.argument("app_id", required=False, default="", shell_complete=complete_app_ids)
@click.option("--address", default="", metavar="HOST:PORT", help="The node's gRPC address.")
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS")
def command(app_id: str, address: str, timeout: float) -> None:
    """Show the circuit breakers in the node of APP_ID."""
    from meshnode.wire.meshnode.admin import v1 as admin

    async def call(channel: Any) -> Any:
        request = admin.ListBreakersRequest()
        return await admin.AdminStub(channel).list_breakers(request, metadata=token_metadata())

    rows = [
        {
            "name": breaker.name,
            "target": breaker.target,
            "state": str(breaker.state.name).lower().replace("_", "-"),
            "half_open_in": breaker.opens_in,
            **{key: getattr(breaker.counts, key, 0) for key in _COUNTS},
        }
        for breaker in ask(Target(app_id, address, timeout), call).breakers
    ]
    output().rows(rows, _COLUMNS, empty="no circuit breaker has been used yet")
