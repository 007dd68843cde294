"""Real mosquitto brokers for tests: on free loopback ports, each in a folder of its own, ended by their
process id. Sessions and what waits in them are there again after a restart.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.install_mosquitto import find_mosquitto, libraries
from support.redis_servers import free_port

__all__ = ["MosquittoServer", "find_mosquitto", "mosquitto_server"]

# Anybody may come in; everything that changes is written at once.
_CONFIG = """\
allow_anonymous true
persistence true
autosave_on_changes true
autosave_interval 1
"""


class MosquittoServer:
    """One process. `start` returns when it answers. `config` is added to ours."""

    def __init__(self, folder: Path, config: str = "", listener: str = "") -> None:
        self.port = free_port()
        self.folder = folder / f"mosquitto-{self.port}"
        self.folder.mkdir(parents=True)
        self._config = self.folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        self._config.write_text(
            f"{_CONFIG}{user}persistence_location {self.folder}/\n{config}\n"
            f"listener {self.port} 127.0.0.1\n{listener}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = find_mosquitto()
        assert program is not None, "mosquitto is not installed"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(program), "-c", str(self._config)],
                env={**os.environ, "LD_LIBRARY_PATH": libraries()},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        """A process that somebody else wrote has no better signal than its port."""
        assert self._process is not None
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"mosquitto did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def pause(self) -> None:
        """SIGSTOP; returns when it does nothing any more."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM: it writes what it has."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        """SIGKILL: as in an accident."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None


@contextmanager
def mosquitto_server(folder: Path, config: str = "", listener: str = "") -> Iterator[MosquittoServer]:
    server = MosquittoServer(folder, config, listener)
    server.start()
    try:
        yield server
    finally:
        server.kill()
