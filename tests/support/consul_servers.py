"""Real Consul agents for tests: a server and agent in one process, in memory, on free loopback ports; ended
by their process id.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from support.install_consul import find_consul
from support.redis_servers import free_port

__all__ = ["ConsulAgent", "consul_agent"]


class ConsulAgent:
    """`start` returns when it answers questions about services. A start anew has forgotten everything."""

    def __init__(self, folder: Path, *, token: str = "", config: str = "") -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.folder = folder
        self.token = token
        self._process: subprocess.Popen[bytes] | None = None
        ports = {"http": self.port, "server": free_port(), "serf_lan": free_port()}
        ports |= dict.fromkeys(("dns", "grpc", "grpc_tls", "serf_wan"), -1)
        lines = [config, f"ports {{ {' '.join(f'{name} = {port}' for name, port in ports.items())} }}"]
        if token:
            lines.append(
                'acl { enabled = true default_policy = "deny" tokens {'
                f' initial_management = "{token}" agent = "{token}" }} }}'
            )
        path = folder / "agent.hcl"
        path.write_text("\n".join(lines))
        self._arguments = ["agent", "-dev", "-bind", "127.0.0.1", "-node", "test", "-config-file", str(path)]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        program = find_consul()
        assert program is not None, "consul is not installed"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, *self._arguments], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self.ask("GET", "/v1/health/service/consul?passing"):
                    return
            except (OSError, URLError):
                pass
            time.sleep(0.05)
        raise RuntimeError(f"consul did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request behind the driver's back; what its answer holds."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Consul-Token": self.token} if self.token else {}
        request = Request(f"http://{self.address}{path}", data, headers, method=method)
        with urlopen(request, timeout=10) as answer:
            content = answer.read()
        return json.loads(content) if content.strip() else None

    def kill(self) -> None:
        """SIGKILL: as in an accident."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None


@contextmanager
def consul_agent(folder: Path, **options: Any) -> Iterator[ConsulAgent]:
    """A running agent, ended on the way out. Options as for `ConsulAgent`."""
    agent = ConsulAgent(folder, **options)
    agent.start()
    try:
        yield agent
    finally:
        agent.kill()
