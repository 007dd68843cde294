"""`meshnode node`: one node beside one application, what `daprd` is to Dapr.

The start-up path: flags, options, then `meshnode.process`. Readiness is reported twice on `--ready-fd`: when
the API answers and, with an application port, when the application does. The run record exists from the
first report until the node has ended.

The garbage collector rests until the node has started, and what start-up has made is frozen then: looking at
it while it grows is 4 % of a start, and at all of it (70,000 objects, 15 ms) again and again later would be
pauses of requests.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, final

from attrs import define, field

from meshnode.cli._errors import CliError, leaves
from meshnode.cli._exit import ExitCode
from meshnode.cli._nodeflags import NODE_TABLE
from meshnode.cli._nodeoptions import node_options
from meshnode.cli._settings import resolve

if TYPE_CHECKING:
    import trio

    from meshnode.cli._flags import Parsed
    from meshnode.config.nodeoptions import NodeOptions, NodeStarted

__all__ = ["main", "run_parsed"]

Report = Callable[[dict[str, Any]], None]

_LEAVING_SECONDS = 5.0
"""What deliveries get when `meshnode run` was killed, before their application is ended."""


def main(args: Sequence[str]) -> int:
    """Parse, run until the node ends, return the exit code."""
    try:
        return run_parsed(NODE_TABLE.parse(args))
    except CliError as error:
        complain(f"meshnode node: {error.message}", error.hint)
        return error.code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    finally:
        gc.enable()


def complain(message: str, hint: str = "") -> None:
    """A message for people, on standard error."""
    print(message, file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)


def run_parsed(parsed: Parsed) -> int:
    """Run the node that parsed flags describe."""
    if parsed.rest:
        raise CliError(
            f"{parsed.rest[0]!r} is not a flag; the node starts no application",
            "`meshnode run` starts a node and an application together",
            ExitCode.USAGE,
        )
    settings = resolve(NODE_TABLE, parsed.values, os.environ)
    options = node_options(settings, os.environ)
    run_info = json.loads(settings.get("run-info", "{}"))
    return _run(options, _reporter(settings.get("ready-fd")), run_info)


def _run(options: NodeOptions, report: Report, run_info: dict[str, Any]) -> int:
    import trio

    from meshnode.errors import ConfigError, MeshError
    from meshnode.process import run_node

    with ExitStack() as cleanup:
        announce = _Announcement(options, report, run_info, cleanup)
        app_ready = partial(report, {"event": "app-ready"})
        node = partial(run_node, options, on_app_ready=app_ready, task_status=announce)
        try:
            code = trio.run(_under_run, node, report) if run_info else trio.run(node)
        except* ConfigError as group:
            _show_problems(group)
            code = ExitCode.USAGE
        except* (MeshError, OSError) as group:
            _show_failures(group, options)
            code = ExitCode.FAILURE
    return int(code or 0)


async def _under_run(node: Callable[..., Coroutine[Any, Any, int]], report: Report) -> int:
    """A node started by `meshnode run` takes its wishes, and ends with it, however that ends."""
    import trio

    leave, quiet = trio.Event(), trio.Event()

    def tell() -> None:
        report({"event": "quiet"})
        quiet.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow_run, leave, quiet)
        code = await node(leave=leave, on_quiet=tell)
        nursery.cancel_scope.cancel()
    return code


async def _follow_run(leave: trio.Event, quiet: trio.Event) -> None:
    """Standard input is a pipe from `run`, with a line for each thing that we are to know or do. Its end,
    while we are alive, means that `run` was killed.

    Then the application that it left behind, and whose number it had told us, is ended before this node.
    """
    import trio

    from meshnode.cli._lines import lines

    app_pid = 0
    async with trio.lowlevel.FdStream(os.dup(0)) as pipe:
        async for line in lines(pipe):
            told = json.loads(line)
            app_pid = told.get("app_pid", app_pid)
            if told.get("leave"):
                leave.set()
    leave.set()
    with trio.move_on_after(_LEAVING_SECONDS):
        await quiet.wait()
    if app_pid:
        with suppress(ProcessLookupError):
            os.killpg(app_pid, signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


def _show_problems(group: BaseExceptionGroup[Any]) -> None:
    for error in leaves(group):
        for problem in error.problems:
            complain(f"meshnode node: {problem}")


def _show_failures(group: BaseExceptionGroup[Any], options: NodeOptions) -> None:
    for error in leaves(group):
        words, hint = str(error), ""
        if isinstance(error, OSError) and error.strerror:
            words = error.strerror  # without "[Errno 98]"
            if error.filename is not None:
                words = f"{error.filename}: {words}"
            if error.errno == errno.EADDRINUSE:
                hint = _free_port_hint(words, options)
        complain(f"meshnode node: {words}", hint)


def _free_port_hint(words: str, options: NodeOptions) -> str:
    for flag, port in (
        ("--dapr-grpc-port", options.grpc_port),
        ("--dapr-internal-grpc-port", options.internal_grpc_port),
    ):
        if port and f":{port}:" in words:
            return f"{flag} 0 takes a free one"
    return ""


def _reporter(descriptor: int | None) -> Report:
    """Writes one JSON line per event; a reader that has gone away is no error."""

    def report(event: dict[str, Any]) -> None:
        if descriptor is None:
            return
        try:
            os.write(descriptor, json.dumps(event).encode() + b"\n")
        except BrokenPipeError:
            pass

    return report


@final
@define
class _Announcement:
    """The task status given to the node: when it has started, the run record is written and the starter is
    told.
    """

    _options: NodeOptions
    _report: Report
    _run_info: dict[str, Any]
    _cleanup: ExitStack
    _done: bool = field(default=False, init=False)

    def started(self, value: NodeStarted | None = None) -> None:
        from meshnode.cli._records import RunRecord, keep_record

        if self._done or value is None:
            return
        self._done = True
        record = RunRecord.of(self._options, value, self._run_info)
        self._cleanup.enter_context(keep_record(record))
        event = {"event": "started", "grpc": list(value.grpc_addresses), "internal": value.internal_address}
        self._report(event | {"notes": list(value.notes)})
        _settle()


def _settle() -> None:
    """After the start: the collector leaves alone what will stay, and memory that only importing needed goes
    back.

    With redis-py loaded the latter is some 14 MiB, which glibc would keep for itself.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    try:
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, OSError, AttributeError):
        return  # another C library: nothing to ask it for
