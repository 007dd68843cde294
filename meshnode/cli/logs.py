"""`meshnode logs`: a node's log as it is written, or what its application printed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import rich_click as click

from meshnode.cli._client import complete_app_ids, find_record, opened, token_metadata
from meshnode.cli._errors import CliError
from meshnode.cli._output import Output
from meshnode.cli._records import RunRecord, live_records
from meshnode.cli._verb import Verb, output

__all__ = ["command"]

_LOOK_AGAIN = 0.2
"""Seconds between two looks at a growing file."""


@click.command("logs", cls=Verb)
@click.argument("app_id", shell_complete=complete_app_ids)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C or the node's end.")
@click.option("-n", "--tail", default=100, show_default=True, metavar="N", help="How many earlier lines.")
@click.option("--source", type=click.Choice(["node", "app"]), default="node", show_default=True)
@click.option(
    "--level", type=click.Choice(["debug", "info", "warn", "error"]), help="The lowest level (node)."
)
@click.option("--scope", default="", help="Only scopes that start with this (node).")
def command(app_id: str, follow: bool, tail: int, source: str, level: str | None, scope: str) -> None:
    """Print the log of APP_ID's node, or with --source app what the application printed.

    With -o jsonl every line is an object.
    """
    import trio

    record = find_record(app_id)
    if source == "app":
        trio.run(_file_lines, output(), record, follow, tail)
    else:
        trio.run(_node_records, output(), record, follow, tail, level or "", scope)


async def _node_records(
    out: Output, record: RunRecord, follow: bool, tail: int, level: str, scope: str
) -> None:
    from meshnode.wire.meshnode.admin import v1 as admin

    request = admin.StreamLogsRequest(level=level, scope=scope, tail=tail, no_follow=not follow)
    async with opened(record.grpc_address) as channel:
        stub = admin.AdminStub(channel)
        async with stub.stream_logs(request, metadata=token_metadata()) as records:
            async for line in records:
                _show(out, line)


def _show(out: Output, line: Any) -> None:
    when = datetime.fromtimestamp(line.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = dict(line.fields)
    if not out.for_people:
        row = {
            "time": when,
            "level": line.level,
            "scope": line.scope,
            "message": line.message,
            "fields": fields,
        }
        out.one_line(row)
        return
    extra = "".join(f" {key}={value}" for key, value in fields.items())
    out.text(f"{when} {line.level:<5} {line.scope} {line.message}{extra}")


async def _file_lines(out: Output, record: RunRecord, follow: bool, tail: int) -> None:
    import trio

    if not record.app_log:
        raise CliError(
            f"the output of {record.app_id} is in no file",
            "start it with `meshnode run` (and not with --app-logs console)",
        )
    async with await trio.open_file(record.app_log, "rb") as file:
        for line in _last_lines(await file.read(), tail):
            _show_line(out, line)
        rest = b""
        while follow and record in live_records():
            chunk = await file.read()
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                _show_line(out, line)
            if not chunk:
                # A file cannot be waited for portably; everything else here is waited for properly.
                await trio.sleep(_LOOK_AGAIN)
        for line in (rest + await file.read()).splitlines() if follow else ():
            _show_line(out, line)


def _last_lines(content: bytes, count: int) -> list[bytes]:
    return content.splitlines()[-count:] if count > 0 else []


def _show_line(out: Output, line: bytes) -> None:
    text = line.decode("utf-8", "backslashreplace")
    if out.for_people:
        out.text(text)
    else:
        out.one_line({"message": text})
