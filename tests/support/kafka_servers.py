"""Real Kafka brokers for tests: one process that is broker and controller (KRaft), on free loopback ports,
in a folder of its own, ended by its process id.

A broker can be killed, paused and started again on the same ports; its log is on disk, and one that was
killed has everything it had acknowledged. `Application` and `subscribed` are for the tests of the driver:
a subscription that keeps account of what it was given.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, final

import pytest
import trio
import trio_asyncio
from aiokafka.admin import (  # type: ignore[import-untyped]
    AIOKafkaAdminClient,
    NewPartitions,
    NewTopic,
)
from support.install_kafka import FOLDER
from support.processes import Process
from support.redis_servers import free_port

from meshnode.interfaces import Outcome

__all__ = [
    "Application",
    "KafkaBroker",
    "add_partitions",
    "committed",
    "create_topic",
    "kafka_broker",
    "members",
    "missing_kafka",
    "on_asyncio",
    "shared_broker",
    "subscribed",
]

# What keeps a Java process on this machine small and quick to start.
_JAVA = ("-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


_QUICK: Mapping[str, object] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "num.partitions": 1,
    "offsets.topic.num.partitions": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    # A group of tests is complete when its first member is there.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    # One that was killed is let in again when its own controller has missed it for that long.
    "broker.session.timeout.ms": 1000,
    "broker.heartbeat.interval.ms": 200,
    "log.cleaner.enable": "false",
    "num.network.threads": 1,
    "num.io.threads": 2,
    "background.threads": 2,
}


def missing_kafka() -> str | None:
    """Why no broker can be started here, for a skip; None when one can."""
    if shutil.which("java") is None:
        return "java is not installed"
    if not list((FOLDER / "lib").glob("kafka_2.13-*.jar")):
        return "Apache Kafka is not installed"
    return None


class KafkaBroker:
    """`settings` are added to server.properties. The listener `PLAINTEXT` is always there, at `address`;
    `listeners` names more of them with their protocols (`{"TLS": "SSL"}`), each with a port of its own.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, object], listeners: Mapping[str, str], scram: Sequence[str]
    ) -> None:
        self.folder = folder / f"kafka-{uuid.uuid4().hex[:8]}"
        self.folder.mkdir(parents=True)
        self.ports = {name: free_port() for name in ("PLAINTEXT", *listeners)}
        self._process: Process | None = None
        self._config = self.folder / "server.properties"
        properties = {**_QUICK, **self._network(listeners), "log.dirs": self.folder / "data", **settings}
        self._config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        self._format(scram)

    @property
    def address(self) -> str:
        return self.address_of("PLAINTEXT")

    def address_of(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    @property
    def runs(self) -> bool:
        return self._process is not None

    def _network(self, listeners: Mapping[str, str]) -> dict[str, object]:
        controller = free_port()
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **listeners}
        places = [f"{name}://127.0.0.1:{port}" for name, port in self.ports.items()]
        return {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join([*places, f"CONTROLLER://127.0.0.1:{controller}"]),
            "advertised.listeners": ",".join(places),
            "listener.security.protocol.map": ",".join(f"{key}:{one}" for key, one in protocols.items()),
        }

    def _java(self, main: str, *arguments: str) -> list[str]:
        return ["java", *_JAVA, "-cp", f"{FOLDER / 'lib'}/*", main, *arguments]

    def _format(self, scram: Sequence[str]) -> None:
        """Makes the data folder. `scram` are users of SASL/SCRAM, as the tool's `--add-scram` has them."""
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        users = [word for user in scram for word in ("--add-scram", user)]
        command = self._java(
            "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._config), *users
        )
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.folder)
        if result.returncode:
            raise RuntimeError(f"Kafka's folder could not be made:\n{result.stdout}{result.stderr}")

    def start(self) -> None:
        """Returns when it takes requests."""
        popen = subprocess.Popen(
            self._java("kafka.Kafka", str(self._config)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
        )
        self._process = Process(popen)
        try:
            self._process.wait_for("Kafka Server started", seconds=60)
        except AssertionError:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: as in an accident."""
        if self._process is not None:
            self._process.end(signal.SIGKILL)
            assert self._process.popen.stdout is not None
            self._process.popen.stdout.close()
            self._process = None

    def pause(self) -> None:
        """It is there, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.popen.pid, number)


@contextmanager
def kafka_broker(
    folder: Path,
    settings: Mapping[str, object] | None = None,
    *,
    listeners: Mapping[str, str] | None = None,
    scram: Sequence[str] = (),
) -> Iterator[KafkaBroker]:
    """A running broker, ended on the way out."""
    broker = KafkaBroker(folder, settings or {}, listeners or {}, scram)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


_shared: list[KafkaBroker] = []


def shared_broker(folder: Path) -> Iterator[KafkaBroker]:
    """For a session's fixture: one broker for all test files, ended with the file's fixture that began it."""
    if reason := missing_kafka():
        pytest.skip(reason)
    if _shared:
        yield _shared[0]
        return
    with kafka_broker(folder) as broker:
        _shared.append(broker)
        yield broker
    _shared.clear()


async def on_asyncio(function: Callable[[], Awaitable[Any]]) -> Any:
    return await trio_asyncio.aio_as_trio(function)()  # type: ignore[attr-defined,no-untyped-call]


async def _ask(address: str, question: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> Any:
    async def ask() -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        try:
            return await question(admin)
        finally:
            await admin.close()

    return await on_asyncio(ask)


async def create_topic(
    address: str, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None
) -> None:
    topic = NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))
    await _ask(address, lambda admin: admin.create_topics([topic]))


async def add_partitions(address: str, name: str, total: int) -> None:
    await _ask(address, lambda admin: admin.create_partitions({name: NewPartitions(total)}))


async def committed(address: str, group: str) -> dict[int, int]:
    """The group's offsets by partition, of its one topic."""
    offsets = await _ask(address, lambda admin: admin.list_consumer_group_offsets(group))
    return {place.partition: found.offset for place, found in offsets.items()}


async def members(address: str, group: str) -> int:
    """How many consumers the broker believes the group to have."""
    (answer,) = await _ask(address, lambda admin: admin.describe_consumer_groups([group]))
    ((_error, _group, _state, _type, _protocol, found, *_rest),) = answer.groups
    return len(found)


@final
class Application:
    """Answers each message as `answer` says, and keeps account."""

    def __init__(self, answer: Callable[[Any], Awaitable[Outcome]]) -> None:
        self._answer = answer
        self._news = trio.Event()
        self.stop = trio.Event()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.messages: list[Any] = []
        self.finished: list[bytes] = []
        self.under_way = 0
        self.most_under_way = 0

    async def take(self, message: Any) -> Outcome:
        self.messages.append(message)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self._tell()
        try:
            outcome = await self._answer(message)
            if outcome is Outcome.ACK:
                self.finished.append(message.data)
            return outcome
        finally:
            self.under_way -= 1
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    @property
    def received(self) -> list[bytes]:
        return [message.data for message in self.messages]

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(60):
            while not condition():
                await self._news.wait()

    async def has(self, count: int) -> None:
        await self.until(lambda: len(self.messages) >= count)

    async def has_finished(self, count: int) -> None:
        await self.until(lambda: len(self.finished) >= count)

    async def cancel(self) -> None:
        self.scope.cancel()
        with trio.fail_after(30):
            await self.ended.wait()
        assert self.scope.cancelled_caught


async def _acknowledge(_message: Any) -> Outcome:
    return Outcome.ACK


@asynccontextmanager
async def subscribed(
    begin: Callable[..., Awaitable[None]], answer: Callable[[Any], Awaitable[Outcome]] = _acknowledge
) -> AsyncIterator[Application]:
    """A subscription that has started; stopped, and waited for, on the way out.

    `begin` takes what delivers, the event to stop, and `task_status`.
    """
    application = Application(answer)

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            with application.scope:
                await begin(application.take, application.stop, task_status=task_status)
        finally:
            application.ended.set()

    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            await nursery.start(run)
        yield application
        application.stop.set()
        with trio.fail_after(60):
            await application.ended.wait()
