"""Real nodes and applications as processes: started by fixtures, their output kept, ended by their process
id.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Node", "Process", "healthz", "node", "process", "wait_until"]

ROOT = Path(__file__).resolve().parent.parent.parent


class Process:
    """A process and what it has printed so far."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, *, seconds: float = 30, after: int = 0) -> int:
        """The number of the first line from `after` on that contains `text`; AssertionError if none comes in
        time.
        """
        end = time.monotonic() + seconds
        at = after
        with self._news:
            while True:
                while at < len(self.lines):
                    if text in self.lines[at]:
                        return at
                    at += 1
                left = end - time.monotonic()
                if left <= 0 or (self.popen.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"{text!r} did not appear; the output was:\n{self.output}")
                self._news.wait(min(left, 1.0))

    def end(self, number: int = signal.SIGTERM, *, seconds: float = 15) -> int:
        """Send a signal and wait; kill what does not end."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"did not end after {signal.Signals(number).name}:\n{self.output}") from None
        self._reader.join(5)
        return code


@contextmanager
def process(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Process]:
    """A process for as long as the context is open."""
    popen = subprocess.Popen(
        command,
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        pass_fds=pass_fds,
    )
    running = Process(popen)
    try:
        yield running
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait()
        assert popen.stdout is not None
        running._reader.join(5)
        popen.stdout.close()


class Node:
    """A node process that is ready."""

    def __init__(self, running: Process, event: Mapping[str, Any]) -> None:
        self.process = running
        self.addresses: list[str] = event["grpc"]
        self.address = self.addresses[0]
        """Of its API, as a channel takes it."""
        self.port = 0 if self.address.startswith("unix:") else int(self.address.rpartition(":")[2])
        self.internal: str = event["internal"]


@contextmanager
def node(
    app_id: str,
    home: Path,
    *flags: str,
    resources: str | None = None,
    app_port: int | None = None,
    grpc_port: int = 0,
    env: Mapping[str, str] | None = None,
) -> Iterator[Node]:
    """`meshnode node` with its files below `home`, which nodes that are to find each other share."""
    args = [sys.executable, "-m", "meshnode", "node", "--app-id", app_id]
    args += ["--dapr-grpc-port", str(grpc_port), *flags]
    if app_port is not None:
        args += ["--app-port", str(app_port)]
    if resources is not None:
        folder = home / f"resources-{app_id}"
        folder.mkdir(exist_ok=True)
        (folder / "resources.yaml").write_text(resources)
        args += ["--resources-path", str(folder)]
    with ExitStack() as stack:
        read, write = os.pipe()
        stack.callback(os.close, read)
        try:
            surroundings = {**surroundings_of(home), **(env or {})}
            running = stack.enter_context(
                process([*args, "--ready-fd", str(write)], env=surroundings, pass_fds=[write])
            )
        finally:
            os.close(write)
        event = _first_event(read, running)
        yield Node(running, event)


def surroundings_of(home: Path) -> dict[str, str]:
    """The XDG folders of a test's own, and no component's socket but its own."""
    folders = {name: home / name.lower() for name in ("STATE", "RUNTIME", "CONFIG", "CACHE", "DATA")}
    for folder in folders.values():
        folder.mkdir(mode=0o700, exist_ok=True)
    named = {f"XDG_{name}_HOME": str(folder) for name, folder in folders.items() if name != "RUNTIME"}
    sockets = {"DAPR_COMPONENTS_SOCKETS_FOLDER": str(home / "components")}
    return {**named, **sockets, "XDG_RUNTIME_DIR": str(folders["RUNTIME"])}


def _first_event(read: int, running: Process) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        readable, _, _ = select.select([read], [], [], 30)
        chunk = os.read(read, 65536) if readable else b""
        if not chunk:
            running.end(signal.SIGKILL)
            raise AssertionError(f"the node did not start:\n{running.output}")
        data += chunk
    event: dict[str, Any] = json.loads(data.splitlines()[0])
    return event


@contextmanager
def healthz() -> Iterator[int]:
    """The HTTP answer that the Python SDK polls at start, which `meshnode run` gives; the port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wait_until(condition: Callable[[], bool], *, seconds: float = 30, what: str = "the condition") -> None:
    """Look again and again, for what no event tells."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.05)
