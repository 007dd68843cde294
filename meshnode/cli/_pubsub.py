"""What `publish` and `subscribe` share: which component is meant, and metadata in both ways of writing it."""

from __future__ import annotations

import json
from typing import Any

import rich_click as click

from meshnode.cli._client import token_metadata
from meshnode.cli._complete import complete_pubsubs
from meshnode.cli._errors import UsageProblem
from meshnode.cli._payload import pairs

__all__ = ["chosen", "metadata_of", "metadata_option", "pubsub_option"]

_USUAL = "pubsub"

pubsub_option = click.option(
    "-p",
    "--pubsub",
    default="",
    shell_complete=complete_pubsubs,
    help="The component's name; by default the node's only one, else `pubsub`.",
)

metadata_option = click.option(
    "-m",
    "--metadata",
    multiple=True,
    metavar="KEY=VALUE",
    help="For the component; may be repeated. A JSON object is understood too.",
)


def metadata_of(words: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` words, and objects as Dapr's command line takes them."""
    result: dict[str, str] = {}
    for word in words:
        result |= _object(word) if word.lstrip().startswith("{") else pairs((word,), "metadata")
    return result


def _object(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageProblem(f"--metadata: {text!r} is not JSON: {error}") from None
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}


async def chosen(channel: Any, pubsub: str) -> str:
    """The name of the component, looked up at the node where the command line has none."""
    if pubsub:
        return pubsub
    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    stub = runtime.DaprStub(channel)
    found = await stub.get_metadata(runtime.GetMetadataRequest(), metadata=token_metadata())
    names = [one.name for one in found.registered_components if one.type.startswith("pubsub.")]
    return names[0] if len(names) == 1 else _USUAL
