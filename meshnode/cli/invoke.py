"""`meshnode invoke`: call a method of an application through a running node."""

from __future__ import annotations

from typing import Any

import rich_click as click

from meshnode.cli._client import Target, ask, complete_app_ids, token_metadata
from meshnode.cli._output import Column
from meshnode.cli._payload import pairs, payload_row, read_payload
from meshnode.cli._records import live_records
from meshnode.cli._verb import Verb, output

__all__ = ["command"]

_VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


@click.command("invoke", cls=Verb)
@click.option(
    "-i", "--app-id", required=True, shell_complete=complete_app_ids, help="The application to call."
)
@click.option("-m", "--method", required=True, help="Its method.")
@click.option("-d", "--data", help="What to send, as text.")
@click.option("-f", "--data-file", metavar="FILE", help="A file with what to send; - is standard input.")
@click.option("--content-type", default="application/json", show_default=True)
@click.option(
    "-v",
    "--verb",
    type=click.Choice(_VERBS, case_sensitive=False),
    default="POST",
    show_default=True,
    help="The HTTP verb carried along, for peers that care.",
)
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Metadata of the call; may be repeated.")
@click.option(
    "--via",
    default="",
    shell_complete=complete_app_ids,
    metavar="APP_ID",
    help="Go through the node of this app id; the application's own when it runs here.",
)
@click.option("--address", default="", metavar="HOST:PORT", help="Go through the node at this gRPC address.")
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS")  # fmt: skip
def command(
    app_id: str,
    method: str,
    data: str | None,
    data_file: str | None,
    content_type: str,
    verb: str,
    metadata: tuple[str, ...],
    via: str,
    address: str,
    timeout: float,
) -> None:
    """Call a method of an application with InvokeService, and print what it answers."""
    from meshnode.wire.dapr.proto.common import v1 as common
    from meshnode.wire.dapr.proto.runtime import v1 as runtime
    from meshnode.wire.google import protobuf

    request = runtime.InvokeServiceRequest(
        id=app_id,
        message=common.InvokeRequest(
            method=method,
            data=protobuf.Any(value=read_payload(data, data_file, "data")),
            content_type=content_type,
            http_extension=common.HttpExtension(verb=common.HttpExtensionVerb[verb.upper()]),
        ),
    )
    headers = token_metadata() | pairs(metadata, "metadata")

    async def call(channel: Any) -> Any:
        return await runtime.DaprStub(channel).invoke_service(request, metadata=headers)

    reply = ask(Target(via or _own_node(app_id, address), address, timeout), call)
    body = reply.data.value if reply.data is not None else b""
    out = output()
    if out.for_people:
        out.text(body.decode("utf-8", "backslashreplace"))
    else:
        row = {"app_id": app_id, "method": method, "content_type": reply.content_type}
        out.item(row | payload_row(body), (Column("value", "VALUE"),))


def _own_node(app_id: str, address: str) -> str:
    """The application's own node when it runs on this machine, else whichever is the only one."""
    if address:
        return ""
    return app_id if any(record.app_id == app_id for record in live_records()) else ""
