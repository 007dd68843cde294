"""Real Redis servers for tests: started on free loopback ports, in a folder of their own, ended by their
process id.

`redis-server` is looked for on PATH and in `.tools/`. A server can be stopped, killed and started again
on the same port; with `persistent=True` it keeps an append-only file, so that what was acknowledged is
there again.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import trio

__all__ = [
    "RedisServer",
    "find_redis_server",
    "free_port",
    "proxy",
    "redis_cluster",
    "redis_server",
    "sentinel_group",
    "wait_for",
]

_TOOLS = Path(__file__).parents[2] / ".tools"
_handed_out: set[int] = set()


def find_redis_server() -> str | None:
    """Path of the program, or None when this machine has none."""
    return shutil.which("redis-server") or next((str(path) for path in _TOOLS.glob("**/redis-server")), None)


def free_port(*, below: int = 65536) -> int:
    """A loopback port nobody listens on, never given twice. (A cluster's bus takes the port 10000 above.)"""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if below <= 55536:
            port = 20000 + port % (below - 20000)
        if port not in _handed_out and _is_free(port):
            _handed_out.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class RedisServer:
    """One redis-server process (or sentinel). `start` returns when it answers."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        port: int | None = None,
        persistent: bool = False,
        password: str = "",
        tls: Sequence[str] = (),
        sentinel_config: str = "",
    ) -> None:
        self.port = free_port() if port is None else port
        self.folder = folder / f"redis-{self.port}"
        self.folder.mkdir(parents=True)
        self._password = password
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._config = self.folder / "sentinel.conf"
        listen = ["--port", "0", "--tls-port", str(self.port), *tls] if tls else ["--port", str(self.port)]
        if sentinel_config:
            self._config.write_text(sentinel_config)
            self._arguments = [str(self._config), "--sentinel", *listen]
        else:
            keep = (
                ["--appendonly", "yes", "--appendfsync", "always"] if persistent else ["--appendonly", "no"]
            )
            self._arguments = [*listen, "--save", "", *keep, *arguments]
            if password:
                self._arguments += ["--requirepass", password]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        program = find_redis_server()
        assert program is not None, "redis-server is not installed"
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [program, *self._arguments, "--bind", "127.0.0.1", "--dir", str(self.folder)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        """A process that somebody else wrote has no better signal than its port."""
        assert self._process is not None
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    if self._tls:
                        return
                    probe.sendall(b"PING\r\n")
                    if probe.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"redis-server did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def command(self, *words: str) -> str:
        """One command over a plain connection; the raw answer.

        For set-up and for looking behind the driver's back.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            lines = [("AUTH", self._password)] if self._password else []
            for line in (*lines, words):
                packed = [f"*{len(line)}\r\n".encode()]
                packed += [b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in line]
                connection.sendall(b"".join(packed))
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        text = answer.decode(errors="replace")
        return text.removeprefix("+OK\r\n") if self._password else text

    def stop(self) -> None:
        """SIGTERM: it writes what it has and closes its connections."""
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
def redis_server(folder: Path, *arguments: str, **options: object) -> Iterator[RedisServer]:
    """A running server, ended on the way out. Options as for `RedisServer`."""
    server = RedisServer(folder, *arguments, **options)  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_cluster(folder: Path, nodes: int = 3, *arguments: str) -> Iterator[list[RedisServer]]:
    """Masters with the slots divided among them, and known to each other."""
    with ExitStack() as stack:
        servers = []
        for _ in range(nodes):
            node = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *arguments]
            servers.append(stack.enter_context(redis_server(folder, *node, port=free_port(below=55000))))
        share = 16384 // nodes
        for number, server in enumerate(servers):
            last = 16383 if number == nodes - 1 else (number + 1) * share - 1
            server.command("CLUSTER", "ADDSLOTSRANGE", str(number * share), str(last))
            server.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
            if number:
                server.command("CLUSTER", "MEET", "127.0.0.1", str(servers[0].port))
        wait_for(lambda: all(_is_whole(server, nodes) for server in servers), "the cluster did not form")
        yield servers


def _is_whole(server: RedisServer, nodes: int) -> bool:
    info = server.command("CLUSTER", "INFO")
    return (
        "cluster_state:ok" in info
        and f"cluster_known_nodes:{nodes}" in info
        and "cluster_slots_ok:16384" in info
    )


@contextmanager
def sentinel_group(folder: Path, password: str = "") -> Iterator[Sequence[RedisServer]]:
    """A master named `mymaster`, its replica, and one sentinel that fails over after a second."""
    options = ["--masterauth", password] if password else []
    with ExitStack() as stack:
        master = stack.enter_context(redis_server(folder, *options, password=password))
        follow = ["--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0"]
        replica = stack.enter_context(redis_server(folder, *options, *follow, password=password))
        wait_for(lambda: "master_link_status:up" in replica.command("INFO", "replication"), "no replication")
        config = [
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds mymaster 1000",
            "sentinel failover-timeout mymaster 3000",
        ]
        if password:
            config.append(f"sentinel auth-pass mymaster {password}")
        text = "\n".join(config) + "\n"
        sentinel = stack.enter_context(redis_server(folder, sentinel_config=text))
        wait_for(
            lambda: "num-slaves\r\n$1\r\n1" in sentinel.command("SENTINEL", "MASTER", "mymaster"),
            "the sentinel has not found the replica",
        )
        yield master, replica, sentinel


@asynccontextmanager
async def proxy(server: RedisServer) -> AsyncIterator[tuple[str, dict[str, int]]]:
    """A link to the server that can be told to swallow the next answer and hang up."""
    state = {"swallow": 0}

    async def pump(source: trio.SocketStream, target: trio.SocketStream, answers: bool) -> None:
        async for chunk in source:
            if answers and state["swallow"]:
                state["swallow"] -= 1
                break
            await target.send_all(chunk)
        await source.aclose()
        await target.aclose()

    async def serve(client: trio.SocketStream) -> None:
        upstream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with client, upstream, trio.open_nursery() as nursery:
            nursery.start_soon(quietly, client, upstream, False)
            nursery.start_soon(quietly, upstream, client, True)

    async def quietly(source: trio.SocketStream, target: trio.SocketStream, answers: bool) -> None:
        try:
            await pump(source, target, answers)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}", state
        nursery.cancel_scope.cancel()


def wait_for(condition: Callable[[], object], complaint: str) -> None:
    """Blocks until what another process does has come about. (It has no way to tell us.)"""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(complaint)
        time.sleep(0.05)
