"""Shell completion with live values. A node that does not answer at once completes nothing."""

from __future__ import annotations

from typing import Any

import rich_click as click

from meshnode.cli._client import Target, ask, token_metadata
from meshnode.cli._errors import CliError

__all__ = ["complete_components", "complete_pubsubs", "complete_stores", "complete_types"]

_PATIENCE = 0.7


def complete_stores(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """State stores of the node that the command line names so far."""
    return _names(ctx, incomplete, "state.")


def complete_pubsubs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Pub/sub components of that node."""
    return _names(ctx, incomplete, "pubsub.")


def complete_components(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """All components of that node."""
    return _names(ctx, incomplete, "")


def complete_types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Component types that are installed."""
    from meshnode.registry import Registry

    return sorted(name for name in Registry.discover().types() if name.startswith(incomplete))


def _names(ctx: click.Context, incomplete: str, prefix: str) -> list[str]:
    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    async def call(channel: Any) -> Any:
        stub = runtime.DaprStub(channel)
        return await stub.get_metadata(runtime.GetMetadataRequest(), metadata=token_metadata())

    target = Target(ctx.params.get("app_id") or "", ctx.params.get("address") or "", _PATIENCE)
    try:
        components = ask(target, call).registered_components
    except (CliError, OSError):
        return []
    return sorted(c.name for c in components if c.type.startswith(prefix) and c.name.startswith(incomplete))
