"""`meshnode explain`: which resiliency applies to a target, and where each part of it comes from."""

from __future__ import annotations

from typing import Any

import rich_click as click

from meshnode.cli._client import Target, ask, target_options, token_metadata
from meshnode.cli._complete import complete_components
from meshnode.cli._verb import VerbGroup, output

__all__ = ["command"]


@click.group("explain", cls=VerbGroup)
def command() -> None:
    """Say which resiliency applies to a target, and why."""


@command.command("app")
@click.argument("name")
@click.option("-m", "--method", default="", help="One of its methods.")
@target_options
def app(target: Target, name: str, method: str) -> None:
    """Calls to the application NAME."""
    _explain(target, "APP", name, method=method)


@command.command("component")
@click.argument("name", shell_complete=complete_components)
@click.option(
    "--direction", type=click.Choice(["outbound", "inbound"]), default="outbound", show_default=True
)
@target_options
def component(target: Target, name: str, direction: str) -> None:
    """Calls to the component NAME, or from it."""
    _explain(target, "COMPONENT", name, direction=direction)


@command.command("actor")
@click.argument("name", metavar="TYPE")
@target_options
def actor(target: Target, name: str) -> None:
    """Calls to actors of TYPE."""
    _explain(target, "ACTOR", name)


def _explain(target: Target, kind: str, name: str, *, method: str = "", direction: str = "") -> None:
    from meshnode.wire.meshnode.admin import v1 as admin

    request = admin.ExplainRequest(
        kind=admin.ExplainRequestKind[kind], name=name, method=method, direction=direction
    )

    async def call(channel: Any) -> Any:
        return await admin.AdminStub(channel).explain(request, metadata=token_metadata())

    reply = ask(target, call)
    out = output()
    if out.for_people:
        for line in reply.lines:
            out.text(line)
    else:
        policy = reply.policy.to_dict() if reply.policy is not None else {}
        out.item({"kind": kind.lower(), "name": name, "lines": list(reply.lines), "policy": policy}, ())
