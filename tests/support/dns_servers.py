"""Real DNS servers for tests: dnsmasq with records of the test's own, on a free loopback port, ended by its
process id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.query
import dns.rdatatype
from support.install_dnsmasq import find_dnsmasq, libraries
from support.redis_servers import free_port

__all__ = ["DnsServer", "dns_server"]

_MARK = "generation.test"


class DnsServer:
    """Knows what it was told, and that there is nothing else in `cluster.local`, `internal` and `test`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._folder = folder
        self._hosts = folder / "hosts"
        self._arguments = arguments
        self._generation = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._write({})

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        program = find_dnsmasq()
        assert program is not None, "dnsmasq is not installed"
        command = [str(program), "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
        command += [f"--port={self.port}", "--listen-address=127.0.0.1", "--bind-interfaces"]
        command += [f"--addn-hosts={self._hosts}", "--local=/cluster.local/internal/test/", "--pid-file="]
        command += [*self._arguments, "--local-ttl=5"]
        if os.geteuid() == 0:
            command.append("--user=root")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--log-facility=-"],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "LD_LIBRARY_PATH": libraries()},
            )
        self._wait()

    def tell(self, records: Mapping[str, Sequence[str]]) -> None:
        """These are the names and addresses from now on. Returns when the server says so too."""
        self._write(records)
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            self._wait()

    def kill(self) -> None:
        """SIGKILL: as in an accident."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def _write(self, records: Mapping[str, Sequence[str]]) -> None:
        self._generation += 1
        lines = [f"{address} {name}" for name, addresses in records.items() for address in addresses]
        self._hosts.write_text("\n".join([*lines, f"10.9.0.{self._generation} {_MARK}", ""]))

    def _wait(self) -> None:
        """Until it answers with what was written last; a process of somebody else's has no better signal."""
        assert self._process is not None
        query = dns.message.make_query(_MARK, dns.rdatatype.A)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                answer = dns.query.udp(query, "127.0.0.1", port=self.port, timeout=1)
            except (TimeoutError, OSError, dns.exception.Timeout):
                time.sleep(0.02)
                continue
            if f"10.9.0.{self._generation}" in str(answer):
                return
            time.sleep(0.02)
        raise RuntimeError(f"dnsmasq did not start:\n{(self._folder / 'log').read_text()[-2000:]}")


@contextmanager
def dns_server(folder: Path, *arguments: str) -> Iterator[DnsServer]:
    """A running server, ended on the way out."""
    server = DnsServer(folder, *arguments)
    server.start()
    try:
        yield server
    finally:
        server.kill()
