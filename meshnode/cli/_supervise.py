"""One application and its node, from start to end.

The order: the node; when it reports that its API answers, the health address and the application; when the
application's port has answered, the node reports that too. The first of these ends it all: the application,
the node, a stop from outside. Ending is the application first, so that it can still use its node while it
finishes, then the node, which drains its calls.

Nothing here polls: readiness comes through a pipe, endings from waiting on the processes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, final

import trio
from attrs import define, field, frozen

from meshnode.cli._exit import ExitCode
from meshnode.cli._output import command_line
from meshnode.cli._process import Child, Command, Launch, exit_status

__all__ = ["AppRun", "Stop", "supervise"]

HealthServer = Callable[[str], AbstractAsyncContextManager[None]]
"""Serves the health address for the node at a gRPC address, for the length of the context."""

_SPARE_SECONDS = 5.0
"""What the node gets beyond its own grace before it is killed."""


@final
@define
class Stop:
    """A wish to end: which signal was sent to us, 0 for none (another application of the run has ended)."""

    number: int = 0
    _event: trio.Event = field(factory=trio.Event, init=False)

    def set(self, number: int = 0) -> None:
        """The first wish counts."""
        if not self.wanted:
            self.number = number
            self._event.set()

    @property
    def wanted(self) -> bool:
        return self._event.is_set()

    @property
    def from_inside(self) -> bool:
        """Nobody outside has asked for it."""
        return self.wanted and not self.number

    async def wait(self) -> None:
        await self._event.wait()


@frozen
class AppRun:
    """What to run. `app` makes the application's command once the node's address is known; None runs the
    node alone.
    """

    app_id: str
    node: Command
    app: Callable[[Mapping[str, Any]], Command] | None
    health: HealthServer
    say: Callable[[str], None]
    """Our own notes to the user."""
    has_port: bool = False
    tell_notes: bool = True
    """Say what the node found worth a note; not needed where its log is on the console."""
    app_grace: float = 10.0
    node_grace: float = 5.0


async def supervise(run: AppRun, launch: Launch, stop: Stop) -> int:
    """Run to the end; the exit code of the application, 130 after Ctrl-C, 1 when the node failed under it."""
    async with launch(run.node) as node:
        started = await _started(node, stop)
        if started is None:
            return await _never_started(run, node, stop)
        address = str(started["grpc"][0])
        run.say(f"{run.app_id}: node ready, gRPC on {address}")
        for note in started.get("notes", ()) if run.tell_notes else ():
            run.say(f"{run.app_id}: {note}")
        async with run.health(address):
            if run.app is None:
                return await _node_alone(run, node, stop)
            command = run.app(started)
            async with launch(command) as app:
                await node.tell({"app_pid": app.pid})
                run.say(f"{run.app_id}: application started: {command_line(command.argv)}")
                return await _together(run, node, app, stop)


async def _started(node: Child, stop: Stop) -> dict[str, Any] | None:
    """The node's first report; None when it ended or a stop came first."""
    found: dict[str, Any] | None = None
    async with trio.open_nursery() as nursery:

        async def stopped() -> None:
            await stop.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(stopped)
        found = await node.report()
        nursery.cancel_scope.cancel()
    return found


async def _never_started(run: AppRun, node: Child, stop: Stop) -> int:
    if stop.wanted:
        await _end(node, signal.SIGTERM, run.node_grace + _SPARE_SECONDS)
        return ExitCode.INTERRUPTED if stop.number == signal.SIGINT else ExitCode.FAILURE
    code = exit_status(await node.wait())
    run.say(f"{run.app_id}: the node did not start (exit code {code}); the application was not started")
    return code or ExitCode.FAILURE


async def _node_alone(run: AppRun, node: Child, stop: Stop) -> int:
    await _first_end((node,), stop)
    code = await _end(node, signal.SIGTERM, run.node_grace + _SPARE_SECONDS)
    return ExitCode.INTERRUPTED if stop.number == signal.SIGINT else exit_status(code)


async def _together(run: AppRun, node: Child, app: Child, stop: Stop) -> int:
    async with trio.open_nursery() as nursery:
        quiet = trio.Event()
        if run.has_port:
            nursery.start_soon(_listen, run, node, quiet)
        first = await _first_end((app, node), stop)
        if first is None and run.has_port:
            await _quieten(run, node, quiet)
        nursery.cancel_scope.cancel()
    node_failed = first is node and await node.wait() != 0
    if first is node:
        run.say(f"{run.app_id}: the node ended by itself; ending the application")
    number = stop.number or signal.SIGTERM
    app_code = await _end(app, number, run.app_grace)
    how = "" if first is not app and app_code == -number else f", exit code {exit_status(app_code)}"
    run.say(f"{run.app_id}: application ended{how}")
    await _end(node, signal.SIGTERM, run.node_grace + _SPARE_SECONDS)
    if stop.number == signal.SIGINT:
        return ExitCode.INTERRUPTED
    if node_failed:
        return ExitCode.FAILURE
    # An application that we ended without anybody having asked for it from outside has not failed.
    ours = first is not app and not stop.number and app_code == -number
    return ExitCode.SUCCESS if ours else exit_status(app_code)


async def _listen(run: AppRun, node: Child, quiet: trio.Event) -> None:
    """The node's reports, until there will be no more."""
    while (event := await node.report()) is not None:
        if event.get("event") == "app-ready":
            run.say(f"{run.app_id}: application ready")
        elif event.get("event") == "quiet":
            quiet.set()
    quiet.set()


async def _quieten(run: AppRun, node: Child, quiet: trio.Event) -> None:
    """Before the application ends, the node takes no more events, and what it works on is finished.

    An event that the application dies over would count as failed.
    """
    await node.tell({"leave": True})
    with trio.move_on_after(run.node_grace):
        await quiet.wait()


async def _first_end(children: Sequence[Child], stop: Stop) -> Child | None:
    """Which child ended first; None when the stop came before."""
    first: Child | None = None
    async with trio.open_nursery() as nursery:

        async def ended(child: Child) -> None:
            nonlocal first
            await child.wait()
            first = first or child
            nursery.cancel_scope.cancel()

        for child in children:
            nursery.start_soon(ended, child)
        await stop.wait()
        nursery.cancel_scope.cancel()
    return first


async def _end(child: Child, number: int, grace: float) -> int:
    """Ask a child to end, insist when it does not; its exit code. One that has ended already is only read."""
    child.send_signal(number)
    with trio.move_on_after(grace):
        return await child.wait()
    child.send_signal(signal.SIGKILL)
    return await child.wait()
