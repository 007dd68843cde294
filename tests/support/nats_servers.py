"""Real nats-servers with JetStream for tests: on free loopback ports, each in a folder of its own, ended by
their process id. What was stored is there again after a restart.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
import trio_asyncio
from nats.aio.client import Client
from support.redis_servers import free_port

__all__ = ["NatsServer", "find_nats_server", "jetstream_api", "nats_server"]

_TOOLS = Path(__file__).parents[2] / ".tools"


def find_nats_server() -> str | None:
    """Path of the program, or None when this machine has none."""
    found = _TOOLS / "bin" / "nats-server"
    return str(found) if found.exists() else shutil.which("nats-server")


class NatsServer:
    """One process. `start` returns when it answers."""

    def __init__(self, folder: Path, config: str = "", domain: str = "") -> None:
        self.port = free_port()
        self.folder = folder / f"nats-{self.port}"
        self.folder.mkdir(parents=True)
        self._config = self.folder / "server.conf"
        more = f", domain: {domain}" if domain else ""
        self._config.write_text(f'jetstream {{ store_dir: "{self.folder}/data"{more} }}\n{config}\n')
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = find_nats_server()
        assert program is not None, "nats-server is not installed"
        arguments = ["--addr", "127.0.0.1", "--port", str(self.port), "--config", str(self._config)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, *arguments], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        """A process that somebody else wrote has no better signal than its port."""
        assert self._process is not None
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    if probe.recv(4) == b"INFO":
                        return
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"nats-server did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def pause(self) -> None:
        """SIGSTOP; returns when it does nothing any more."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: as in an accident."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None


@contextmanager
def nats_server(folder: Path, config: str = "", domain: str = "") -> Iterator[NatsServer]:
    server = NatsServer(folder, config, domain)
    server.start()
    try:
        yield server
    finally:
        server.kill()


async def jetstream_api(server: NatsServer, method: str, *arguments: object, **options: object) -> object:
    """One call of nats-py's JetStreamContext: for set-up and for looking behind the driver's back.

    Inside a trio-asyncio loop.
    """

    async def call() -> object:
        client = Client()
        await client.connect(server.url)
        try:
            return await getattr(client.jetstream(), method)(*arguments, **options)
        finally:
            await client.close()

    with trio.fail_after(30):
        return await trio_asyncio.aio_as_trio(call)()  # type: ignore[attr-defined,no-untyped-call]
