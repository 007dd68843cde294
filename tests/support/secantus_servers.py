"""Servers that speak MongoDB's protocol, for tests: SecantusDB on free loopback ports, each in a folder of
its own, ended by their process id. What was acknowledged is there again after `kill` and `start`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from support.install_secantus import find_secantus
from support.redis_servers import free_port, wait_for

__all__ = ["SecantusServer", "find_secantus", "secantus_server"]


class SecantusServer:
    """One server: a replica set of one, or `--standalone`. `start` returns when it answers."""

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.folder = folder / f"secantus-{self.port}"
        self.folder.mkdir(parents=True)
        self.arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        program = find_secantus()
        assert program is not None, "SecantusDB is not installed"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    # Not by its first line, which names the folder that it was installed in.
                    str(program.with_name("python")), str(program),
                    "--host", "127.0.0.1", "--port", str(self.port), "--cache-size", "64M",
                    "--storage-path", str(self.folder / "data"), "--sync-on-commit", *self.arguments,
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        wait_for(self._answers, f"SecantusDB did not start; see {self.folder / 'log'}")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"SecantusDB did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @contextmanager
    def client(self, login: str = "") -> Iterator[MongoClient[dict[str, Any]]]:
        """For set-up, and for looking behind the driver's back."""
        with MongoClient[dict[str, Any]](f"mongodb://{login}{self.address}/") as client:
            yield client

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL: as in an accident."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def stop(self) -> None:
        """As an operator does it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None


@contextmanager
def secantus_server(folder: Path, *arguments: str) -> Iterator[SecantusServer]:
    """A running server, gone afterwards."""
    server = SecantusServer(folder, arguments)
    try:
        server.start()
        yield server
    finally:
        server.kill()
