"""`meshnode stop`: end nodes, and the applications that were started with them."""

from __future__ import annotations

import os
import signal

import rich_click as click

from meshnode.cli._client import complete_app_ids, find_record
from meshnode.cli._errors import CliError, UsageProblem
from meshnode.cli._output import Column
from meshnode.cli._records import RunRecord, live_records, wait_gone
from meshnode.cli._verb import Verb, output

__all__ = ["command"]

_COLUMNS = (Column("app_id", "APP ID"), Column("pid", "PID"), Column("stopped", "STOPPED"))


@click.command("stop", cls=Verb)
@click.argument("app_ids", metavar="APP_ID...", nargs=-1, shell_complete=complete_app_ids)
@click.option("--all", "everything", is_flag=True, help="Stop every node of this machine.")
@click.option(
    "--timeout", default=30.0, show_default=True, metavar="SECONDS", help="How long to wait for the end."
)
def command(app_ids: tuple[str, ...], everything: bool, timeout: float) -> int:
    """Stop the nodes of app ids, and the applications started with them.

    The application gets SIGTERM, then the node drains its calls. The command returns when they have ended.
    """
    import trio

    if bool(app_ids) == everything:
        raise UsageProblem("say which app ids to stop, or --all")
    records = live_records() if everything else _records(app_ids)
    for record in records:
        _signal(record)
    gone = trio.run(_wait, records, timeout)
    rows = [{"app_id": r.app_id, "pid": r.pid, "stopped": r in gone} for r in records]
    output().rows(rows, _COLUMNS, empty="no node is running on this machine")
    left = [record for record in records if record not in gone]
    if left:
        names = ", ".join(record.app_id for record in left)
        raise CliError(f"still running after {timeout:g} s: {names}")
    return 0


def _records(app_ids: tuple[str, ...]) -> list[RunRecord]:
    wanted = {find_record(app_id).app_id for app_id in app_ids}
    return [record for record in live_records() if record.app_id in wanted]


def _signal(record: RunRecord) -> None:
    """To `meshnode run` where there is one: it ends the application first, then the node. Where `run` was
    killed, its node is still ours to end; one that has just gone needs nothing.
    """
    for pid in (record.run_pid, record.pid):
        if pid is not None:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
            except PermissionError:
                raise CliError(f"process {pid} of {record.app_id} is not yours to stop") from None
            return


async def _wait(records: list[RunRecord], seconds: float) -> list[RunRecord]:
    import trio

    gone: list[RunRecord] = []

    async def one(record: RunRecord) -> None:
        await trio.to_thread.run_sync(wait_gone, record, abandon_on_cancel=True)
        gone.append(record)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for record in records:
                nursery.start_soon(one, record)
    return gone
