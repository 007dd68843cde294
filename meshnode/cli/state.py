"""`meshnode state get|save|delete`: read and write an application's state through its node."""

from __future__ import annotations

from typing import Any

import rich_click as click

from meshnode.cli._client import Target, ask, target_options, token_metadata
from meshnode.cli._complete import complete_stores
from meshnode.cli._errors import CliError, UsageProblem
from meshnode.cli._output import Column
from meshnode.cli._payload import pairs, payload_row, read_payload
from meshnode.cli._verb import VerbGroup, output

__all__ = ["command"]

_store = click.option(
    "-s",
    "--store",
    default="statestore",
    show_default=True,
    shell_complete=complete_stores,
    help="The component's name.",
)
_metadata = click.option(
    "--metadata", multiple=True, metavar="KEY=VALUE", help="For the store; may be repeated."
)
_consistency = click.option("--consistency", type=click.Choice(["eventual", "strong"]))
_etag = click.option("--etag", help="Only if this is still the stored version.")  # fmt: skip


@click.group("state", cls=VerbGroup)
def command() -> None:
    """Read and write an application's state through its node."""


@command.command("get")
@click.argument("key")
@_store
@_consistency
@_metadata
@target_options
def get(target: Target, key: str, store: str, consistency: str | None, metadata: tuple[str, ...]) -> None:
    """Print the value of KEY. Exit code 1 when there is none."""
    from meshnode.wire.dapr.proto.common import v1 as common
    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    request = runtime.GetStateRequest(
        store_name=store,
        key=key,
        consistency=common.StateOptionsStateConsistency[_consistency_name(consistency)],
        metadata=pairs(metadata, "metadata"),
    )

    async def call(channel: Any) -> Any:
        return await runtime.DaprStub(channel).get_state(request, metadata=token_metadata())

    reply = ask(target, call)
    if not reply.data and not reply.etag:
        raise CliError(f"{store} has no value for {key}")
    out = output()
    if out.for_people:
        out.text(reply.data.decode("utf-8", "backslashreplace"))
    else:
        row = {"key": key, **payload_row(reply.data), "etag": reply.etag, "metadata": dict(reply.metadata)}
        out.item(row, (Column("value", "VALUE"),))


@command.command("save")
@click.argument("key")
@click.argument("value", required=False)
@click.option("-f", "--value-file", metavar="FILE", help="A file with the value; - is standard input.")
@click.option("--ttl", type=int, metavar="SECONDS", help="Let it expire.")
@click.option("--first-write", is_flag=True, help="Refuse when somebody has written in between.")
@_store
@_etag
@_consistency
@_metadata
@target_options
def save(
    target: Target,
    key: str,
    value: str | None,
    value_file: str | None,
    ttl: int | None,
    first_write: bool,
    store: str,
    etag: str | None,
    consistency: str | None,
    metadata: tuple[str, ...],
) -> None:
    """Write VALUE (or the content of a file) under KEY."""
    from meshnode.wire.dapr.proto.common import v1 as common
    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    if value is None and value_file is None:
        raise UsageProblem("a value is needed: as a second word, or with --value-file")
    headers = pairs(metadata, "metadata") | ({"ttlInSeconds": str(ttl)} if ttl is not None else {})
    item = common.StateItem(
        key=key,
        value=read_payload(value, value_file, "value"),
        etag=common.Etag(value=etag) if etag is not None else None,
        metadata=headers,
        options=_options(first_write, consistency),
    )

    async def call(channel: Any) -> Any:
        request = runtime.SaveStateRequest(store_name=store, states=[item])
        return await runtime.DaprStub(channel).save_state(request, metadata=token_metadata())

    ask(target, call)
    _done("saved", key, store)


@command.command("delete")
@click.argument("key")
@_store
@_etag
@_metadata
@target_options
def delete(target: Target, key: str, store: str, etag: str | None, metadata: tuple[str, ...]) -> None:
    """Delete KEY. Deleting what is not there is no error."""
    from meshnode.wire.dapr.proto.common import v1 as common
    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    request = runtime.DeleteStateRequest(
        store_name=store,
        key=key,
        etag=common.Etag(value=etag) if etag is not None else None,
        options=_options(etag is not None, None),
        metadata=pairs(metadata, "metadata"),
    )

    async def call(channel: Any) -> Any:
        return await runtime.DaprStub(channel).delete_state(request, metadata=token_metadata())

    ask(target, call)
    _done("deleted", key, store)


def _options(first_write: bool, consistency: str | None) -> Any:
    from meshnode.wire.dapr.proto.common import v1 as common

    concurrency = "CONCURRENCY_FIRST_WRITE" if first_write else "CONCURRENCY_UNSPECIFIED"
    return common.StateOptions(
        concurrency=common.StateOptionsStateConcurrency[concurrency],
        consistency=common.StateOptionsStateConsistency[_consistency_name(consistency)],
    )


def _consistency_name(choice: str | None) -> str:
    return f"CONSISTENCY_{(choice or 'unspecified').upper()}"


def _done(what: str, key: str, store: str) -> None:
    out = output()
    if out.for_people:
        out.message(f"{what} {key} in {store}")
    else:
        out.item({"key": key, "store": store, "result": what}, ())
