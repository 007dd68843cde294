"""Real etcd servers for tests: on free loopback ports, in a folder of their own, ended by their process id.

A server can be killed and started again on the same port: what was acknowledged is there again. Tests look
behind a driver's back by the server's JSON gateway.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from support.install_etcd import find_etcd
from support.redis_servers import free_port

__all__ = ["EtcdServer", "etcd_cluster", "etcd_server", "text64"]

QUICK = ("--heartbeat-interval=10", "--election-timeout=100")
"""A lease lives one and a half election timeouts at least: so one of a second is one of a second."""


def text64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


class EtcdServer:
    """One member. `start` returns when it answers; `kill` and `start` keep what was acknowledged."""

    def __init__(
        self, folder: Path, *arguments: str, name: str = "one", tls: Sequence[str] = (), lone: bool = True
    ) -> None:
        self.port, self.peer, self._metrics = free_port(), free_port(), free_port()
        self.name = name
        self.folder = folder / f"etcd-{self.port}"
        self.folder.mkdir(parents=True)
        self._scheme = "https" if tls else "http"
        self._arguments = [*arguments, *tls]
        if lone:
            self._arguments += [*QUICK, f"--initial-cluster={self.as_member}"]
        self._process: subprocess.Popen[bytes] | None = None
        self.token = ""
        """Sent by `post`, where authentication is enabled."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def as_member(self) -> str:
        return f"{self.name}=http://127.0.0.1:{self.peer}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self, *arguments: str) -> None:
        program = find_etcd()
        assert program is not None, "etcd is not installed"
        client = f"{self._scheme}://{self.address}"
        peer = f"http://127.0.0.1:{self.peer}"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program, f"--name={self.name}", f"--data-dir={self.folder / 'data'}",
                    f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
                    f"--listen-metrics-urls=http://127.0.0.1:{self._metrics}", *self._arguments, *arguments,
                ],
                env={**os.environ, "ETCD_UNSUPPORTED_ARCH": os.uname().machine},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def start(self) -> None:
        self.launch()
        self.wait()

    def wait(self) -> None:
        """Until it knows a leader. A process that somebody else wrote has no better signal than its port."""
        assert self._process is not None
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/health", timeout=2) as answer:
                    if json.load(answer)["health"] == "true":
                        return
            except (OSError, ValueError):
                pass
            time.sleep(0.02)
        raise RuntimeError(f"etcd did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def post(self, path: str, **fields: Any) -> dict[str, Any]:
        """One call by the JSON gateway; keys and values are base64 there."""
        headers = {"Authorization": self.token} if self.token else {}
        url, body = f"http://{self.address}/v3/{path}", json.dumps(fields).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode()}") from error

    def put(self, key: str, value: str | bytes, **fields: Any) -> int:
        """The revision."""
        answer = self.post("kv/put", key=text64(key), value=text64(value), **fields)
        return int(answer["header"]["revision"])

    def delete(self, key: str) -> None:
        self.post("kv/deleterange", key=text64(key))

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The key as it stands there, its value as bytes."""
        found = self.post("kv/range", key=text64(key)).get("kvs")
        return None if not found else {**found[0], "value": base64.b64decode(found[0].get("value", ""))}

    def require_login(self, password: str = "s3cret") -> None:
        """From here on only the user root may, and `post` speaks as that."""
        self.post("auth/user/add", name="root", password=password)
        self.post("auth/role/add", name="root")
        self.post("auth/user/grant", user="root", role="root")
        self.post("auth/enable")
        self.token = self.post("auth/authenticate", name="root", password=password)["token"]

    def stall(self) -> None:
        """SIGSTOP; returns when all its threads stand still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM: it tells its callers."""
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
def etcd_server(folder: Path, *arguments: str, tls: Sequence[str] = ()) -> Iterator[EtcdServer]:
    """A running server, ended on the way out."""
    server = EtcdServer(folder, *arguments, tls=tls)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def etcd_cluster(folder: Path, members: int = 3) -> Iterator[list[EtcdServer]]:
    """Members that know each other and have a leader."""
    servers = [EtcdServer(folder, name=f"m{number}", lone=False) for number in range(members)]
    cluster = ",".join(server.as_member for server in servers)
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.launch(f"--initial-cluster={cluster}")
        for server in servers:
            server.wait()
        yield servers
