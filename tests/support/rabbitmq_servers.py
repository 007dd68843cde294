"""Real RabbitMQ brokers for tests: on free loopback ports, with a folder, an Erlang port mapper and a cookie
of their own, ended by process id.

A broker can be killed and started again with the messages it had, and be paused. `rabbitmq` is one that the
session's tests share, with TLS on a second port and a user `client`, who logs in by certificate.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, final

import aiormq
import pytest
import trio.testing
import trio_asyncio
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic
from support.certificates import Authority
from support.install_rabbitmq import find_rabbitmq
from support.redis_servers import free_port

__all__ = ["RabbitServer", "Raw", "rabbit_server", "rabbitmq", "raw_client", "watched_loop"]


@final
class RabbitServer:
    """One broker. `start` returns when it takes connections."""

    def __init__(self, folder: Path, authority: Authority | None = None) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self._folder = folder / f"rabbitmq-{self.port}"
        self._folder.mkdir(parents=True)
        self._epmd_port, self._distribution_port = free_port(), free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._write_configuration(authority)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    def _write_configuration(self, authority: Authority | None) -> None:
        lines = ["log.console.level = warning", f"listeners.tcp.1 = 127.0.0.1:{self.port}"]
        lines += [f"load_definitions = {self._folder / 'definitions.json'}"]
        plugins = "[]."
        if authority is not None:
            ca, certificate, key = authority.write(self._folder, "server")
            lines += [f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}", f"ssl_options.cacertfile = {ca}"]
            lines += [f"ssl_options.certfile = {certificate}", f"ssl_options.keyfile = {key}"]
            lines += ["ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = false"]
            lines += ["ssl_cert_login_from = common_name"]
            lines += ["auth_mechanisms.1 = PLAIN", "auth_mechanisms.2 = EXTERNAL"]
            plugins = "[rabbitmq_auth_mechanism_ssl]."
        (self._folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self._folder / "plugins").write_text(plugins)
        (self._folder / "definitions.json").write_text(json.dumps(_definitions("guest", "client")))
        # The packaged `erl` knows where it would have been installed only.
        erl = self._folder / "bin" / "erl"
        erl.parent.mkdir()
        erl.write_text(_ERL)
        erl.chmod(0o755)

    def _environment(self) -> dict[str, str]:
        home = find_rabbitmq()
        assert home is not None
        (binaries,) = (home / "lib/erlang").glob("erts-*/bin")
        variables = {
            "HOME": self._folder,
            "PATH": f"{self._folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "ERLANG_ROOT": home / "lib/erlang",
            "ERLANG_BIN": binaries,
            "ERL_EPMD_PORT": self._epmd_port,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_ALLOW_INPUT": 1,  # so the script becomes the broker instead of its parent
            "RABBITMQ_CONF_ENV_FILE": self._folder / "none",
            "RABBITMQ_CONFIG_FILE": self._folder / "rabbitmq",
            "RABBITMQ_DIST_PORT": self._distribution_port,
            "RABBITMQ_ENABLED_PLUGINS_FILE": self._folder / "plugins",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": self._folder / "log",
            "RABBITMQ_MNESIA_BASE": self._folder / "data",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_PID_FILE": self._folder / "pid",
        }
        return {name: str(value) for name, value in variables.items()}

    def start(self) -> None:
        home = find_rabbitmq()
        assert home is not None, "rabbitmq-server is not installed"
        environment = self._environment()
        if self._epmd is None:
            epmd = [str(Path(environment["ERLANG_BIN"], "epmd")), "-port", str(self._epmd_port)]
            self._epmd = self._spawn(epmd, environment)
            self._wait_until(lambda: _listens(self._epmd_port))
        server = [str(home / "lib/rabbitmq/bin/rabbitmq-server"), "-noinput", "-start_epmd", "false"]
        self._server = self._spawn(server, environment)
        self._wait_until(lambda: _greets(self.port))

    def _spawn(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self._folder / "output").open("ab") as output:
            return subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """A process that somebody else wrote has no better signal than its port."""
        end = time.monotonic() + 60
        while not condition():
            ended = self._server is not None and self._server.poll() is not None
            if ended or time.monotonic() > end:
                text = (self._folder / "output").read_text()[-3000:]
                raise RuntimeError(f"rabbitmq-server did not start:\n{text}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: as in an accident. Returns when the programs it had started are gone too."""
        if self._server is not None:
            family = _descendants(self._server.pid)
            self._server.kill()
            self._server.wait(20)
            self._server = None
            end = time.monotonic() + 20
            while any(Path("/proc", str(pid)).exists() for pid in family):
                assert time.monotonic() < end, "programs of the broker outlive it"
                time.sleep(0.02)

    def pause(self) -> None:
        """Returns when it stands still."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        threads = list(Path("/proc", str(self._server.pid), "task").glob("*/stat"))
        while any(thread.read_text().rpartition(")")[2].split()[0] != "T" for thread in threads):
            time.sleep(0.001)

    def resume(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(20)
            self._epmd = None


_ERL = """\
#!/bin/sh
export ROOTDIR="$ERLANG_ROOT" BINDIR="$ERLANG_BIN" EMU=beam PROGNAME=erl
exec "$BINDIR/erlexec" "$@"
"""


def _definitions(*users: str) -> dict[str, Any]:
    """Users whose password is their name, and may do everything."""
    salt = b"salt"
    digests = {name: salt + hashlib.sha256(salt + name.encode()).digest() for name in users}
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "vhosts": [{"name": "/"}],
        "users": [
            {
                "name": name,
                "password_hash": base64.b64encode(digest).decode(),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "administrator",
            }
            for name, digest in digests.items()
        ],
        "permissions": [{"user": name, "vhost": "/", **everything} for name in users],
    }


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _greets(port: int) -> bool:
    """Whether it answers the protocol's header, which it does once it has started."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(1) == b"\x01"
    except OSError:
        return False


def _descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found: list[int] = []
    for one in [pid, *parents]:
        line, at = [], one
        while at in parents and at != pid:
            line.append(at)
            at = parents[at]
        if at == pid and line:
            found.append(one)
    return found


@contextmanager
def rabbit_server(folder: Path, authority: Authority | None = None) -> Iterator[RabbitServer]:
    """A running broker, ended on the way out; skips the test where there is none."""
    if find_rabbitmq() is None:
        pytest.skip("rabbitmq-server is not installed")
    server = RabbitServer(folder, authority)
    try:
        server.start()
        yield server
    finally:
        server.close()


@final
class _Shared:
    """The session's broker: the fixture is a different one in each module that imports it."""

    def __init__(self) -> None:
        self.users = 0
        self.server: RabbitServer | None = None
        self.authority = Authority()


_shared = _Shared()


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RabbitServer, Authority]]:
    """The session's broker, and the authority that signed its certificate."""
    if find_rabbitmq() is None:
        pytest.skip("rabbitmq-server is not installed")
    if _shared.server is None:
        _shared.server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"), _shared.authority)
        _shared.server.start()
    _shared.users += 1
    try:
        yield _shared.server, _shared.authority
    finally:
        _shared.users -= 1
        if not _shared.users:
            _shared.server.close()
            _shared.server = None


@final
class Raw:
    """A client that is not the driver: to write what others write, and to look behind its back. For trio."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel: AbstractChannel | None = None

    async def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        async def call() -> Any:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._connection.channel()
            return await getattr(self._channel, name)(*arguments, **options)

        return await trio_asyncio.aio_as_trio(call)()  # type: ignore[attr-defined,no-untyped-call]

    async def exchange(self, name: str, kind: str = "fanout", **options: Any) -> None:
        await self._call("exchange_declare", name, exchange_type=kind, **options)

    async def queue(self, name: str, **options: Any) -> None:
        await self._call("queue_declare", name, **options)

    async def bind(self, queue: str, exchange: str, key: str = "") -> None:
        await self._call("queue_bind", queue, exchange, key)

    async def delete_queue(self, name: str) -> None:
        await self._call("queue_delete", name)

    async def delete_exchange(self, name: str) -> None:
        await self._call("exchange_delete", name)

    async def counts(self, queue: str) -> tuple[int, int]:
        """Messages that wait for a consumer, and consumers. Raises where there is no such queue."""
        answer = await self._call("queue_declare", queue, passive=True)
        return answer.message_count, answer.consumer_count

    async def publish(self, body: bytes, *, exchange: str = "", key: str = "", **properties: Any) -> None:
        await self._call(
            "basic_publish",
            body,
            exchange=exchange,
            routing_key=key,
            properties=Basic.Properties(**properties),
        )

    async def get(self, queue: str) -> DeliveredMessage | None:
        """The next message, acknowledged; None where there is none."""
        message: DeliveredMessage = await self._call("basic_get", queue, no_ack=True)
        return message if isinstance(message.delivery, Basic.GetOk) else None


@asynccontextmanager
async def watched_loop() -> AsyncIterator[None]:
    """A trio-asyncio loop. What asyncio has to complain about (a future that failed and that nobody looked
    at) ends the loop, and so the test.
    """
    async with trio_asyncio.open_loop():  # type: ignore[attr-defined]
        yield
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def raw_client(server: RabbitServer) -> AsyncIterator[Raw]:
    """Inside a trio-asyncio loop."""
    on_asyncio: Any = trio_asyncio.aio_as_trio  # type: ignore[attr-defined]
    connection = await on_asyncio(partial(aiormq.connect, server.url))()
    try:
        yield Raw(connection)
    finally:
        await on_asyncio(connection.close)()
