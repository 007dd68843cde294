"""Processes that can be killed, started again, paused and resumed, all by their process id."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import trio

__all__ = ["Daemon"]

_PATIENCE = 20.0


@final
class Daemon:
    """One program, started as often as needed; its output goes to `log`, all of it one after another.

    `may_end`: ending by itself with success is what it is meant to do.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        may_end: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self.falls: list[str] = []
        self._command = command
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._may_end = may_end
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Returns once the process is there; whether it is ready shows in its log."""
        with self.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,  # Ctrl-C is for the runner, which ends us
            )

    async def kill(self) -> None:
        """SIGKILL, also where it is paused; returns once it is gone."""
        process = self._process
        if process is not None:
            self.notice()
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            self._process = None

    async def stop(self) -> None:
        """SIGTERM: it should end soon, and well; before it listens to signals it may just die of one."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        with trio.move_on_after(_PATIENCE):
            await process.wait()
        code = process.poll()
        if code not in (None, 0, -signal.SIGTERM):
            self.falls.append(f"{self.name} ended with {code} when it was asked to")
        elif code is None:
            self.falls.append(f"{self.name} did not end within {_PATIENCE:g} s when it was asked to")
            await self.kill()
        self._process = None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    async def wait(self) -> None:
        """Until it has ended by itself."""
        if self._process is not None:
            await self._process.wait()

    def notice(self) -> None:
        """Write down an end that nobody brought about."""
        code = self._process.poll() if self._process is not None else None
        if code is not None and not (self._may_end and code == 0):
            self.falls.append(f"{self.name} ended by itself with {code}")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
