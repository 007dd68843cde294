"""Child processes of `meshnode run`: started in a group of their own, read line by line, never left behind.

Each child leads its own process group, so that a signal reaches what it started too, and Ctrl-C on the
terminal reaches only us: we decide who is told what, and when.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, final

import trio
from attrs import define, field, frozen

from meshnode.cli._errors import CliError
from meshnode.cli._lines import lines

__all__ = ["Child", "Command", "Launch", "exit_status", "launch"]

_DRAIN_SECONDS = 1.0
"""How long output is still read after a child has ended: somebody it started may hold the pipe for ever."""


@frozen
class Command:
    """What to start.

    `reports` joins the child to us by two pipes: one for its readiness reports, whose number is appended to
    `argv`, and its standard input, through which it is told things and sees when we are gone.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    write: Callable[[bytes], None]
    cwd: Path | None = None
    reports: bool = False


class Child(Protocol):
    """A running child."""

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        ...

    async def wait(self) -> int:
        """Its exit code; below 0 when a signal ended it."""
        ...

    def send_signal(self, number: int) -> None:
        """To the whole group; nothing when it has ended."""
        ...

    async def tell(self, event: dict[str, Any]) -> None:
        """One JSON line on its standard input."""
        ...

    async def report(self) -> dict[str, Any] | None:
        """The next readiness report, None when there will be no more."""
        ...


Launch = Callable[[Command], AbstractAsyncContextManager[Child]]


@asynccontextmanager
async def launch(command: Command) -> AsyncIterator[Child]:
    """Run a child for the length of the context; one that still runs at its end is killed."""
    reader, writer = os.pipe() if command.reports else (None, None)
    try:
        process = await _open(command, writer)
    except OSError as error:
        if reader is not None:
            os.close(reader)
        raise _cannot_start(command, error) from None
    finally:
        if writer is not None:
            os.close(writer)
    child = _Process(process, None if reader is None else trio.lowlevel.FdStream(reader))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pump, process, command.write)
        try:
            yield child
        finally:
            child.send_signal(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()
                await child.close()


async def _open(command: Command, writer: int | None) -> trio.Process:
    argv = list(command.argv)
    if writer is not None:
        argv += ["--ready-fd", str(writer)]
    return await trio.lowlevel.open_process(
        argv,
        stdin=subprocess.DEVNULL if writer is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=command.cwd,
        env=dict(command.env),
        pass_fds=() if writer is None else (writer,),
        process_group=0,
    )


def _cannot_start(command: Command, error: OSError) -> CliError:
    return CliError(f"cannot start {command.argv[0]}: {error.strerror}")


async def _pump(process: trio.Process, write: Callable[[bytes], None]) -> None:
    """Read until the pipe closes, or a moment longer than the process lives."""
    assert process.stdout is not None
    async with process.stdout, trio.open_nursery() as nursery:

        async def read() -> None:
            async for line in lines(process.stdout):  # type: ignore[arg-type]
                write(line)
            nursery.cancel_scope.cancel()

        nursery.start_soon(read)
        with trio.CancelScope(shield=True):
            await process.wait()
        nursery.cancel_scope.deadline = trio.current_time() + _DRAIN_SECONDS


@final
@define
class _Process:
    process: trio.Process
    pipe: trio.lowlevel.FdStream | None
    _reports: AsyncGenerator[bytes, None] | None = field(init=False)

    @_reports.default
    def _open_reports(self) -> AsyncGenerator[bytes, None] | None:
        return None if self.pipe is None else lines(self.pipe)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def tell(self, event: dict[str, Any]) -> None:
        if self.process.stdin is None:
            return
        try:
            await self.process.stdin.send_all(json.dumps(event).encode() + b"\n")
        except trio.BrokenResourceError:
            pass  # it has ended, which others notice

    async def wait(self) -> int:
        return await self.process.wait()

    def send_signal(self, number: int) -> None:
        if self.process.returncode is not None:
            return
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    async def report(self) -> dict[str, Any] | None:
        if self._reports is None:
            return None
        try:
            content: dict[str, Any] = json.loads(await anext(self._reports))
        except StopAsyncIteration:
            return None
        return content

    async def close(self) -> None:
        if self._reports is not None and self.pipe is not None:
            await self._reports.aclose()
            await self.pipe.aclose()
        if self.process.stdin is not None:
            await self.process.stdin.aclose()


def exit_status(returncode: int) -> int:
    """As a shell reports it: 128 + N for a child that signal N ended."""
    return returncode if returncode >= 0 else 128 - returncode
