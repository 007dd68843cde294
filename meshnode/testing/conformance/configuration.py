"""The conformance suite of configuration stores.

    import pytest
    from meshnode.testing.conformance import configuration

    @pytest.mark.parametrize("check", configuration.CHECKS, ids=str)
    async def test_conformance(check, open_store, put, remove):
        await check.run(configuration.Setup(open_store, put, remove))

`open` takes nothing and returns an async context manager that yields the store. The first violation raises
`ConformanceError`.

May import meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import final

import trio
from attrs import frozen

from meshnode.interfaces import ConfigurationItem, ConfigurationStore
from meshnode.testing.conformance._check import RUN, ConformanceError, bare, expect, within

__all__ = ["CHECKS", "ConfigurationCheck", "ConformanceError", "Setup"]

Changes = Mapping[str, ConfigurationItem | None]


@final
@frozen
class Setup:
    """A store under test. `put` (key, value, version) and `remove` change it from outside.

    `own_versions`: the backend makes versions itself, and perhaps metadata; then only values are compared,
    and that versions are there.
    """

    open: Callable[[], AbstractAsyncContextManager[ConfigurationStore]]
    put: Callable[[str, str, str], Awaitable[None]]
    remove: Callable[[str], Awaitable[None]]
    patience: float = 20
    own_versions: bool = False

    def item(self, value: str, version: str = "") -> ConfigurationItem:
        """What a key must be that was put in this way, as `seen` shows it."""
        return ConfigurationItem(value, "" if self.own_versions else version)

    def seen(self, item: ConfigurationItem | None) -> ConfigurationItem | None:
        """An item that the store gave, to be compared."""
        if item is None or not self.own_versions:
            return item
        expect(bool(item.version), f"an item without a version: {item}")
        return ConfigurationItem(item.value)


@final
@frozen
class ConfigurationCheck:
    """One rule a configuration store must keep."""

    name: str
    body: Callable[[Setup], Awaitable[None]]

    def __str__(self) -> str:
        return self.name

    async def run(self, setup: Setup) -> None:
        with bare():
            await self.body(setup)


@final
class _Watch:
    """What a watch has told, one change after another."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._bell = trio.Event()
        self.told: list[tuple[str, ConfigurationItem | None]] = []
        self.stop = trio.Event()
        self.ended = trio.Event()

    async def notify(self, changes: Changes) -> None:
        expect(bool(changes), "an empty notification")
        self.told.extend((key, self._setup.seen(item)) for key, item in changes.items())
        self._bell.set()
        self._bell = trio.Event()

    async def run(self, store: ConfigurationStore, *keys: str, task_status: trio.TaskStatus[None]) -> None:
        await store.watch(keys, {}, self.notify, self.stop, task_status=task_status)
        self.ended.set()

    async def has(self, key: str, item: ConfigurationItem | None) -> None:
        """Waits until this was the last that was told of the key."""
        with within(self._setup.patience, f"the change of {key} was not told"):
            while [one for name, one in self.told if name == key][-1:] != [item]:
                await self._bell.wait()


@asynccontextmanager
async def _watching(setup: Setup, store: ConfigurationStore, *keys: str) -> AsyncIterator[_Watch]:
    watch = _Watch(setup)
    async with trio.open_nursery() as nursery:
        with within(setup.patience, "the watch did not begin"):
            await nursery.start(partial(watch.run, store, *keys))
        yield watch
        nursery.cancel_scope.cancel()


def _name(text: str) -> str:
    return f"{RUN}-{text}"


async def items_are_read(setup: Setup) -> None:
    first, second, missing = _name("a"), _name("b"), _name("missing")
    async with setup.open() as store:
        expect(isinstance(store, ConfigurationStore), "the object lacks a method of ConfigurationStore")
        await setup.put(first, "one", "v1")
        await setup.put(second, "zwei: ü", "")
        wanted = {first: setup.item("one", "v1"), second: setup.item("zwei: ü")}
        some = await store.get([first, second, missing], {})
        found = {key: setup.seen(item) for key, item in some.items()}
        expect(found == wanted, f"expected {wanted}, found {found}")
        everything = {key: setup.seen(item) for key, item in (await store.get([], {})).items()}
        expect(wanted.items() <= everything.items(), "not all keys were read")
        await store.ping()


async def changes_are_told_in_order(setup: Setup) -> None:
    key, other = _name("watched"), _name("other")
    async with setup.open() as store:
        await setup.put(key, "before", "0")
        async with _watching(setup, store, key) as watch:
            for number in range(5):
                await setup.put(other, str(number), "")
                await setup.put(key, f"value {number}", str(number))
                await watch.has(key, setup.item(f"value {number}", str(number)))
            await setup.remove(key)
            await watch.has(key, None)
            await setup.put(key, "again", "1")
            await watch.has(key, setup.item("again", "1"))
            wanted = [f"value {number}" for number in range(5)] + ["", "again"]
            told = [item.value if item is not None else "" for _, item in watch.told]
            expect(told == wanted, f"expected {wanted}, told was {told}")
            expect(all(name == key for name, _ in watch.told), "a key was told that is not watched")


async def all_keys_are_watched_where_none_is_named(setup: Setup) -> None:
    async with setup.open() as store, _watching(setup, store) as watch:
        for key in (_name("c"), _name("d")):
            await setup.put(key, "x", "9")
            await watch.has(key, setup.item("x", "9"))


async def a_slow_reader_gets_the_last_value(setup: Setup) -> None:
    key, gate, seen = _name("slow"), trio.Event(), trio.Event()
    told: list[ConfigurationItem | None] = []

    async def notify(changes: Changes) -> None:
        told.extend(map(setup.seen, changes.values()))
        if told[-1] == setup.item("49"):
            seen.set()
        await gate.wait()

    async with setup.open() as store, trio.open_nursery() as nursery:
        await nursery.start(partial(store.watch, (key,), {}, notify, trio.Event()))
        for number in range(50):
            await setup.put(key, str(number), "")
        gate.set()
        with within(setup.patience, "the last value was not told"):
            await seen.wait()
        numbers = [int(item.value) for item in told if item is not None]
        expect(numbers == sorted(set(numbers)), f"out of order or twice: {numbers}")
        nursery.cancel_scope.cancel()


async def stop_ends_a_watch(setup: Setup) -> None:
    async with setup.open() as store, _watching(setup, store, _name("a")) as watch:
        watch.stop.set()
        with within(setup.patience, "the watch did not end"):
            await watch.ended.wait()


async def watches_are_independent(setup: Setup) -> None:
    key = _name("shared")
    async with setup.open() as store, _watching(setup, store, key) as one:
        async with _watching(setup, store, key) as two:
            await setup.put(key, "both", "")
            await one.has(key, setup.item("both"))
            await two.has(key, setup.item("both"))
        await setup.put(key, "one", "")
        await one.has(key, setup.item("one"))


CHECKS = tuple(
    ConfigurationCheck(body.__name__, body)
    for body in (
        items_are_read,
        changes_are_told_in_order,
        all_keys_are_watched_where_none_is_named,
        a_slow_reader_gets_the_last_value,
        stop_ends_a_watch,
        watches_are_independent,
    )
)
