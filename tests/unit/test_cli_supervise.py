"""One application and its node: who is started when, who ends whom, and with which exit code.

Children are fakes, time is virtual.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field

from meshnode.cli._process import Command
from meshnode.cli._supervise import AppRun, Stop, supervise

STARTED = {"event": "started", "grpc": ["127.0.0.1:4000"], "internal": "127.0.0.1:4001", "notes": ["a note"]}


@define
class FakeChild:
    """Ends when told to: by itself (`end`), or on a signal it obeys."""

    name: str
    journal: list[str]
    reports: list[dict[str, Any]] = field(factory=list)
    obeys: Mapping[int, int] = field(factory=lambda: {signal.SIGTERM: -15, signal.SIGINT: -2})
    after: float | None = None
    code: int = 0
    slow: float = 0.0
    quiet_after: float | None = None
    _told: trio.Event = field(factory=trio.Event)
    _ended: trio.Event = field(factory=trio.Event)
    returncode: int | None = None
    pid: int = 4711

    async def tell(self, event: dict[str, Any]) -> None:
        self.journal.append(f"{self.name} is told {event}")
        if "leave" in event:
            self._told.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is not None:
            return
        self.journal.append(f"{self.name}<-{signal.Signals(number).name}")
        if number == signal.SIGKILL:
            self.end(-9)
        elif number in self.obeys:
            self.end(self.obeys[number])

    def end(self, code: int) -> None:
        self.journal.append(f"{self.name} ends")
        self.returncode = code
        self._ended.set()

    async def report(self) -> dict[str, Any] | None:
        if self.slow:
            await trio.sleep(self.slow)
        if self.reports:
            return self.reports.pop(0)
        if self.quiet_after is not None:
            await self._told.wait()
            await trio.sleep(self.quiet_after)
            self.quiet_after = None
            self.journal.append(f"{self.name} is quiet")
            return {"event": "quiet"}
        await self._ended.wait()
        return None


@define
class World:
    """Starts fakes in the order in which commands come: node first, application second."""

    node: FakeChild
    app: FakeChild
    journal: list[str]
    said: list[str] = field(factory=list)

    @asynccontextmanager
    async def launch(self, command: Command) -> AsyncIterator[FakeChild]:
        child = self.node if command.reports else self.app
        self.journal.append(f"{child.name} starts")
        async with trio.open_nursery() as nursery:
            if child.after is not None:
                nursery.start_soon(self._end_later, child, child.after)
            yield child
            nursery.cancel_scope.cancel()
        assert child.returncode is not None, f"{child.name} was left running"

    async def _end_later(self, child: FakeChild, seconds: float) -> None:
        await trio.sleep(seconds)
        if child.returncode is None:
            child.end(child.code)

    @asynccontextmanager
    async def health(self, address: str) -> AsyncIterator[None]:
        self.journal.append(f"health for {address}")
        yield

    def plan(self, **changes: Any) -> AppRun:
        nothing = Command((), {}, lambda line: None)
        values: dict[str, Any] = {
            "app_id": "orders",
            "node": Command(("node",), {}, lambda line: None, reports=True),
            "app": lambda started: nothing,
            "health": self.health,
            "say": self.said.append,
        }
        return AppRun(**values | changes)


@pytest.fixture
def world() -> World:
    journal: list[str] = []
    node = FakeChild("node", journal, [STARTED], obeys={signal.SIGTERM: 0})
    return World(node, FakeChild("app", journal), journal)


async def test_order_and_exit_code(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.app.after, world.app.code = 1, 7
    assert await supervise(world.plan(), world.launch, Stop()) == 7
    assert world.journal == [
        "node starts",
        "health for 127.0.0.1:4000",
        "app starts",
        "node is told {'app_pid': 4711}",
        "app ends",
        "node<-SIGTERM",
        "node ends",
    ]
    assert "orders: a note" in world.said


async def test_killed_application_ends_as_in_a_shell(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.app.after, world.app.code = 1, -9
    assert await supervise(world.plan(), world.launch, Stop()) == 137


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_reaches_the_application_first(
    world: World, autojump_clock: trio.testing.MockClock, number: int, code: int
) -> None:
    stop = Stop()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, stop, number)
        assert await supervise(world.plan(), world.launch, stop) == code
    name = signal.Signals(number).name
    assert world.journal[-4:] == [f"app<-{name}", "app ends", "node<-SIGTERM", "node ends"]


@pytest.mark.parametrize(("seconds", "quiet"), [(1, True), (60, False)])
async def test_the_node_finishes_its_events_before_the_application_ends(
    world: World, autojump_clock: trio.testing.MockClock, seconds: float, quiet: bool
) -> None:
    """Within the node's grace period."""
    world.node.quiet_after = seconds
    stop = Stop()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, stop, signal.SIGTERM)
        await supervise(world.plan(has_port=True, node_grace=5), world.launch, stop)
    expected = ["node is told {'leave': True}", *(["node is quiet"] if quiet else [])]
    assert world.journal[-4 - len(expected) :] == [
        *expected, "app<-SIGTERM", "app ends", "node<-SIGTERM", "node ends"
    ]  # fmt: skip


async def test_a_stubborn_application_is_killed(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.app.obeys = {}
    stop = Stop()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, stop, signal.SIGTERM)
        assert await supervise(world.plan(app_grace=3), world.launch, stop) == 137
    assert trio.current_time() - start == pytest.approx(1 + 3)


async def test_a_stop_without_a_signal_is_success(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    stop = Stop()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, stop, 0)
        assert await supervise(world.plan(), world.launch, stop) == 0


async def test_a_node_that_does_not_start(world: World) -> None:
    world.node.reports.clear()
    world.node.end(2)
    assert await supervise(world.plan(), world.launch, Stop()) == 2
    assert "app starts" not in world.journal
    assert "did not start (exit code 2)" in world.said[-1]


@pytest.mark.parametrize(("node_code", "code"), [(1, 1), (-9, 1), (0, 0)])
async def test_the_application_does_not_outlive_its_node(
    world: World, autojump_clock: trio.testing.MockClock, node_code: int, code: int
) -> None:
    world.node.after, world.node.code = 2, node_code
    assert await supervise(world.plan(), world.launch, Stop()) == code
    assert world.journal[-2:] == ["app<-SIGTERM", "app ends"]


async def test_a_stop_before_the_node_is_ready(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.node.slow = 60
    stop = Stop()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, stop, signal.SIGINT)
        assert await supervise(world.plan(), world.launch, stop) == 130
    assert "app starts" not in world.journal


async def test_the_node_alone(world: World, autojump_clock: trio.testing.MockClock) -> None:
    stop = Stop()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, stop, signal.SIGTERM)
        assert await supervise(world.plan(app=None), world.launch, stop) == 0
    assert world.journal[-2:] == ["node<-SIGTERM", "node ends"]


async def test_readiness_of_the_application_is_told(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.node.reports.append({"event": "app-ready"})
    world.app.after = 1
    assert await supervise(world.plan(has_port=True), world.launch, Stop()) == 0
    assert "orders: application ready" in world.said


async def _later(stop: Stop, number: int) -> None:
    await trio.sleep(1)
    stop.set(number)
