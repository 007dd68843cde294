"""The cache over a name resolver: how long answers live, who asks, who waits, and what a failure does."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.cluster import Directory, LookupFailed
from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import Instance, NameResolver

ORDERS = ("orders", "default")


class FakeResolver:
    """Answers from a dict, after `takes` seconds; counts how often it was asked."""

    def __init__(self, max_age: float = 2.5, takes: float = 0.0) -> None:
        self.known: dict[tuple[str, str], list[str]] = {ORDERS: ["a:1", "b:1"]}
        self.max_age = max_age
        self.takes = takes
        self.asked = 0
        self.error: Exception | None = None

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        yield

    async def resolve(self, app_id: str, namespace: str) -> list[str]:
        self.asked += 1
        await trio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return list(self.known.get((app_id, namespace), []))


def test_the_fake_is_a_resolver() -> None:
    assert isinstance(FakeResolver(), NameResolver)


async def test_an_answer_is_reused_until_it_is_too_old(mock_clock: MockClock) -> None:
    resolver = FakeResolver(max_age=2.5)
    directory = Directory(resolver)
    first = await directory.lookup(*ORDERS)
    mock_clock.jump(2.4)
    assert await directory.lookup(*ORDERS) is first
    assert directory.cached(*ORDERS) is first
    mock_clock.jump(0.2)
    assert directory.cached(*ORDERS) is None
    assert await directory.lookup(*ORDERS) == ("a:1", "b:1")
    assert resolver.asked == 2


async def test_age_counts_from_the_question(autojump_clock: MockClock) -> None:
    resolver = FakeResolver(max_age=2.5, takes=2.0)
    directory = Directory(resolver)
    await directory.lookup(*ORDERS)
    await trio.sleep(0.6)
    assert directory.cached(*ORDERS) is None


async def test_static_answers_never_age(mock_clock: MockClock) -> None:
    resolver = FakeResolver(max_age=math.inf)
    directory = Directory(resolver)
    await directory.lookup(*ORDERS)
    mock_clock.jump(1e9)
    await directory.lookup(*ORDERS)
    assert resolver.asked == 1


async def test_max_age_zero_asks_each_time_but_shares_a_question_under_way(autojump_clock: MockClock) -> None:
    resolver = FakeResolver(max_age=0.0, takes=1.0)
    directory = Directory(resolver)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(directory.lookup, *ORDERS)
    assert resolver.asked == 1
    await directory.lookup(*ORDERS)
    assert resolver.asked == 2


async def test_namespaces_are_apart() -> None:
    resolver = FakeResolver()
    resolver.known["orders", "production"] = ["p:1"]
    directory = Directory(resolver)
    assert await directory.lookup("orders", "production") == ("p:1",)
    assert await directory.lookup(*ORDERS) == ("a:1", "b:1")


async def test_absence_is_not_remembered() -> None:
    resolver = FakeResolver()
    directory = Directory(resolver)
    assert await directory.lookup("late", "default") == ()
    resolver.known["late", "default"] = ["l:1"]
    assert await directory.lookup("late", "default") == ("l:1",)


async def test_an_app_that_is_gone_is_forgotten(mock_clock: MockClock) -> None:
    resolver = FakeResolver(max_age=1.0)
    directory = Directory(resolver)
    await directory.lookup(*ORDERS)
    del resolver.known[ORDERS]
    mock_clock.jump(2.0)
    assert await directory.lookup(*ORDERS) == ()
    assert directory.cached(*ORDERS) is None


@pytest.mark.parametrize(
    ("app_id", "address", "namespace", "dropped"),
    [
        ("orders", "a:1", "default", True),
        ("orders", "old:1", "default", False),  # a failure of a connection that an earlier answer had named
        ("orders", "a:1", "production", False),
        ("checkout", "a:1", "default", False),
    ],
)
async def test_a_failed_connection_drops_the_answer_it_came_from(
    app_id: str, address: str, namespace: str, dropped: bool
) -> None:
    directory = Directory(FakeResolver())
    await directory.lookup(*ORDERS)
    directory.invalidate(app_id, address, namespace)
    assert (directory.cached(*ORDERS) is None) == dropped


async def test_at_most_so_many_names_are_kept_the_least_recently_asked_goes() -> None:
    resolver = FakeResolver()
    names = [(f"app-{n}", "default") for n in range(4)]
    resolver.known.update({name: ["x:1"] for name in names})
    directory = Directory(resolver, capacity=3)
    for name in names[:3]:
        await directory.lookup(*name)
    directory.cached(*names[0])
    await directory.lookup(*names[3])
    assert [directory.cached(*name) is not None for name in names] == [True, False, True, True]


async def test_an_error_reaches_everybody_who_waits_and_is_not_kept(autojump_clock: MockClock) -> None:
    resolver = FakeResolver(takes=1.0)
    resolver.error = ComponentUnavailable("database is locked")
    directory = Directory(resolver)
    failures: list[LookupFailed] = []

    async def ask() -> None:
        with pytest.raises(LookupFailed, match="database is locked") as caught:
            await directory.lookup(*ORDERS)
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert resolver.asked == 1
    assert len({id(error) for error in failures}) == 3, (
        "one exception object must not be raised in several tasks"
    )
    assert trio.current_time() == 1.0
    resolver.error = None
    assert await directory.lookup(*ORDERS) == ("a:1", "b:1")


async def test_when_the_one_who_asks_is_cancelled_another_asks(autojump_clock: MockClock) -> None:
    resolver = FakeResolver(takes=3.0)
    directory = Directory(resolver)
    answers: list[tuple[str, ...]] = []

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            answers.append(await directory.lookup(*ORDERS))

    first = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, first)
        await wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(ask, trio.CancelScope())
        await trio.sleep(1)
        first.cancel()
    assert answers == [("a:1", "b:1")] * 3
    assert resolver.asked == 2
    assert trio.current_time() == 4.0


async def test_a_known_answer_needs_no_checkpoint() -> None:
    directory = Directory(FakeResolver())
    await directory.lookup(*ORDERS)
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await directory.lookup(*ORDERS) == ("a:1", "b:1")
