"""One seed's run, from an empty folder to a verdict."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import trio
from attrs import field, frozen
from support.processes import surroundings_of
from support.redis_servers import find_redis_server, free_port

from histories import plan as names
from histories.checker import Verdict, check, read_history
from histories.daemons import Daemon
from histories.faults import Fault, Kind
from histories.links import Link
from histories.plan import Plan
from histories.records import read_records
from histories.resources import PUBSUB, TOPIC, pubsub_resources

__all__ = ["Result", "run"]

TESTS = Path(__file__).resolve().parent.parent
_START = 40.0
_RECOVERY = 60.0
"""Seconds for everybody to begin, and for everything acknowledged to arrive after the last fault."""
_LOOK = 0.1


@final
@frozen
class Result:
    """`trouble`: what is wrong beside the verdict, a line each."""

    plan: Plan
    verdict: Verdict
    trouble: list[str]
    faults: Mapping[str, int] = field(factory=dict)
    recovery: float = 0.0

    @property
    def violations(self) -> list[str]:
        return [*self.trouble, *self.verdict.violations(ordered=self.plan.ordered)]


@final
class Stage:
    """Everything that can be killed or cut, by name."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.records = folder / "records"
        self.daemons: dict[str, Daemon] = {}
        self.links: dict[str, Link] = {}
        self.applied: Counter[str] = Counter()

    def link(self, one: str, other: str, target: int) -> int:
        """A way that can be cut; its near port."""
        made = self.links[names.link(one, other)] = Link(_port(), target)
        return made.port

    def daemon(self, name: str, *command: str, **options: Any) -> None:
        self.daemons[name] = Daemon(name, command, self.folder / f"{name}.log", **options)

    def application(self, name: str, module: str, **settings: Any) -> None:
        settings |= {"name": name, "records": str(self.records), "seed": self.plan.seed}
        command = [sys.executable, "-m", f"histories.{module}", json.dumps(settings)]
        env = {"PYTHONPATH": str(TESTS)}
        self.daemon(name, *command, env=env, may_end=module != "subscriber")

    def node(self, name: str, app_id: str, port: int, resources: str, app_port: int | None = None) -> None:
        home = self.folder / name
        (home / "resources").mkdir(parents=True)
        (home / "resources" / "resources.yaml").write_text(resources)
        command = [sys.executable, "-m", "meshnode", "node", "--app-id", app_id]
        command += ["--dapr-grpc-port", str(port), "--resources-path", str(home / "resources")]
        if app_port is not None:
            command += ["--app-port", str(app_port)]
        self.daemon(name, *command, env=surroundings_of(home))

    def verdict(self) -> Verdict:
        return check(read_history(read_records(self.records)))


def _port() -> int:
    """Below the range from which the system takes ports for outgoing connections: it must stay ours while
    its owner is dead.
    """
    return free_port(below=32000)


async def run(plan: Plan, folder: Path) -> Result:
    """Play it. `folder` is empty; it has everybody's records and logs afterwards."""
    stage = _set(plan, folder)
    async with _running(stage):
        await _until_listening(stage)
        await _misbehave(stage)
        began = trio.current_time()
        trouble = await _recover(stage)
        recovery = trio.current_time() - began
        for daemon in stage.daemons.values():
            daemon.notice()
            trouble += daemon.falls
    return Result(plan, stage.verdict(), trouble, stage.applied, recovery)


def _set(plan: Plan, folder: Path) -> Stage:
    stage = Stage(plan, folder)
    stage.records.mkdir()
    broker = _port() if plan.broker == "redis" else 0
    if broker:
        _set_redis(stage, broker)

    def resources(node: str) -> str:
        port = stage.link(node, names.BROKER, broker) if broker else 0
        return pubsub_resources(plan, redis_port=port, database=folder / "messages.db")

    api = _port()
    stage.node(names.PUBLISHER_NODE, "publisher", api, resources(names.PUBLISHER_NODE))
    stage.link(names.PUBLISHER, names.PUBLISHER_NODE, api)
    for number in range(plan.subscribers):
        node = names.subscriber_node(number)
        _set_subscriber(stage, number, resources(node))
    return stage


def _set_redis(stage: Stage, port: int) -> None:
    program = find_redis_server()
    assert program is not None, "redis-server is not installed"
    folder = stage.folder / "redis"
    folder.mkdir()
    keep = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    stage.daemon(
        names.BROKER, program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *keep
    )


def _set_subscriber(stage: Stage, number: int, resources: str) -> None:
    """A stream goes from the application to its node, callbacks the other way."""
    app, node = names.subscriber(number), names.subscriber_node(number)
    api, port = _port(), _port()
    common = {"style": stage.plan.style, "pubsub": PUBSUB, "topic": TOPIC}
    if stage.plan.style == "stream":
        stage.node(node, "subscriber", api, resources)
        address = f"127.0.0.1:{stage.link(app, node, api)}"
        stage.application(app, "subscriber", address=address, **common)
    else:
        stage.node(node, "subscriber", api, resources, stage.link(app, node, port))
        stage.application(app, "subscriber", port=port, **common)


@asynccontextmanager
async def _running(stage: Stage) -> AsyncIterator[None]:
    """Everything but the publisher begins here, and nothing is left behind."""
    async with trio.open_nursery() as nursery:
        for link in stage.links.values():
            await nursery.start(link.run)
        try:
            for daemon in stage.daemons.values():
                await daemon.start()
            yield
        finally:
            for daemon in stage.daemons.values():
                await daemon.kill()
            nursery.cancel_scope.cancel()


async def _until_listening(stage: Stage) -> None:
    """A node tells of a callback's subscription in its log, an application of its stream's."""
    plan = stage.plan
    logs = [stage.daemons[names.subscriber_node(n)].log for n in range(plan.subscribers)]

    def begun() -> bool:
        if plan.style == "stream":
            heard = [one for one in read_records(stage.records) if one["what"] == "listening"]
            return len(heard) >= len(logs)
        return all("is subscribed to topic" in log.read_text() for log in logs)

    with trio.fail_after(_START):
        while not begun():  # noqa: ASYNC110 - what other processes write raises no event here
            await trio.sleep(_LOOK)


async def _misbehave(stage: Stage) -> None:
    """Publish while the schedule is played; afterwards everybody is there again."""
    link = stage.links[names.link(names.PUBLISHER, names.PUBLISHER_NODE)]
    stage.application(
        names.PUBLISHER,
        "publisher",
        address=f"127.0.0.1:{link.port}",
        pubsub=PUBSUB,
        topic=TOPIC,
        keys=stage.plan.keys,
        until=time.monotonic_ns() + int(stage.plan.seconds * 1e9),
    )
    await stage.daemons[names.PUBLISHER].start()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for target in {fault.target for fault in stage.plan.faults}:
            nursery.start_soon(_play, stage, target, began)


async def _play(stage: Stage, target: str, began: float) -> None:
    """One target's faults, one after another."""
    for fault in stage.plan.faults:
        if fault.target == target:
            await trio.sleep_until(began + fault.at)
            stage.applied[fault.kind.value] += 1
            await _suffer(stage, fault)


async def _suffer(stage: Stage, fault: Fault) -> None:
    if fault.target in stage.links:
        link = stage.links[fault.target]
        link.cut(fault.kind)
        await trio.sleep(fault.seconds)
        link.heal()
        return
    daemon = stage.daemons[fault.target]
    if fault.kind is Kind.PAUSE:
        daemon.pause()
        await trio.sleep(fault.seconds)
        daemon.resume()
        return
    await (daemon.kill() if fault.kind is Kind.KILL else daemon.stop())
    await trio.sleep(fault.seconds)
    await daemon.start()


async def _recover(stage: Stage) -> list[str]:
    """Until the publisher has ended and nothing is owed any more; what is wrong if that does not come."""
    with trio.move_on_after(_RECOVERY):
        await stage.daemons[names.PUBLISHER].wait()
        while not stage.verdict().settled:  # noqa: ASYNC110 - as above
            await trio.sleep(_LOOK)
        return []
    return [f"not settled {_RECOVERY:g} s after the last fault"]
