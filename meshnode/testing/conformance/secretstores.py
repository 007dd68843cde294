"""The conformance suite of secret stores.

    import pytest
    from meshnode.testing.conformance import secretstores

    @pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
    async def test_conformance(check, open_store):
        await check.run(secretstores.Setup(open_store, {"name": {"key": "value"}}))

`open` takes nothing and returns an async context manager that yields the store; `secrets` is what it holds,
at least one of them. `run` returns False where the setup says that a check does not apply. The first
violation raises `ConformanceError`, which never quotes a value.

May import meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import final

import trio
from attrs import frozen

from meshnode.interfaces import SecretFeature, SecretStore
from meshnode.testing.conformance._check import RUN, ConformanceError, bare, expect, within

__all__ = ["CHECKS", "ConformanceError", "SecretCheck", "Setup"]


@final
@frozen
class Setup:
    """A secret store under test. `bulk`: the store can list its secrets. `others`: there are secrets in it
    besides those named here.
    """

    open: Callable[[], AbstractAsyncContextManager[SecretStore]]
    secrets: Mapping[str, Mapping[str, str]]
    bulk: bool = True
    others: bool = False
    patience: float = 20


@final
@frozen
class SecretCheck:
    """One rule a secret store must keep."""

    name: str
    body: Callable[[Setup], Awaitable[None]]
    when: Callable[[Setup], bool] = lambda _setup: True

    def __str__(self) -> str:
        return self.name

    async def run(self, setup: Setup) -> bool:
        if not self.when(setup):
            return False
        with bare():
            await self.body(setup)
        return True


async def a_secret_is_its_keys_and_values(setup: Setup) -> None:
    async with setup.open() as store:
        expect(isinstance(store, SecretStore), "the object lacks a method of SecretStore")
        for name in setup.secrets:
            await _holds(setup, store, name)


async def what_is_not_there_is_a_key_error(setup: Setup) -> None:
    async with setup.open() as store:
        for name in (f"no-such-secret-{RUN}", "", "\N{SNOWMAN}", "no\nsuch secret", "x" * 300):
            with within(setup.patience, "a secret that is not there was not refused"):
                await _absent(store, name)
        await _holds(setup, store, next(iter(setup.secrets)))


async def a_name_is_one_name(setup: Setup) -> None:
    """Scopes compare names as they are: a second spelling of a secret would be a way around them."""
    async with setup.open() as store:
        for name in setup.secrets:
            spellings = {f"{name}/", f"/{name}", f"./{name}", f"{name}/.", f"x/../{name}", f" {name}"}
            quoted = "".join(f"%{byte:02x}" for byte in name.encode())
            more = {f"{name} ", f"{name}?", f"{name}#", f"{name}\0", f"//{name}", quoted}
            for spelling in sorted((spellings | more) - setup.secrets.keys()):
                await _absent(store, spelling)


async def features_tell_of_several_values(setup: Setup) -> None:
    async with setup.open() as store:
        features = store.features
        expect(isinstance(features, frozenset), "features is a frozenset")
        expect(all(isinstance(one, SecretFeature) for one in features), "features are SecretFeatures")
        several = SecretFeature.MULTIPLE_KEY_VALUES_PER_SECRET in features
        for name, values in setup.secrets.items():
            expect(several or list(values) == [name], "a secret with keys of its own needs the feature")


async def all_secrets_come_in_bulk(setup: Setup) -> None:
    async with setup.open() as store:
        with within(setup.patience, "bulk_get did not return"):
            found = await store.bulk_get({})
        for name, values in setup.secrets.items():
            expect(dict(found.get(name, {})) == dict(values), f"{name} does not come in bulk as it is")
        expect(setup.others or found.keys() == setup.secrets.keys(), "more or fewer secrets came in bulk")
        expect(all(map(_is_text, found.values())), "names, keys and values are text")


async def calls_run_side_by_side(setup: Setup) -> None:
    async with setup.open() as store, trio.open_nursery() as nursery:
        for name in setup.secrets:
            for _ in range(5):
                nursery.start_soon(_holds, setup, store, name)


async def cancelled_calls_harm_nobody(setup: Setup) -> None:
    name = next(iter(setup.secrets))
    async with setup.open() as store:
        for turn in range(6):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_holds, setup, store, name)
                for _ in range(turn):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await _holds(setup, store, name)


async def it_can_be_opened_again(setup: Setup) -> None:
    for _ in range(2):
        async with setup.open() as store:
            for name in setup.secrets:
                await _holds(setup, store, name)


async def _holds(setup: Setup, store: SecretStore, name: str) -> None:
    with within(setup.patience, f"{name} did not come"):
        try:
            values = await store.get(name, {})
        except KeyError:
            raise ConformanceError(f"the secret {name} was not found") from None
    expect(_is_text(values), "keys and values are text")
    expect(dict(values) == dict(setup.secrets[name]), f"the secret {name} has other keys or values")


async def _absent(store: SecretStore, name: str) -> None:
    try:
        await store.get(name, {})
    except KeyError:
        return
    raise ConformanceError(f"{name!r} is no secret, but something came")


def _is_text(values: Mapping[str, str]) -> bool:
    return all(type(key) is str and type(value) is str for key, value in values.items())


def _collect(
    *bodies: Callable[[Setup], Awaitable[None]], when: Callable[[Setup], bool] = lambda _setup: True
) -> tuple[SecretCheck, ...]:
    return tuple(SecretCheck(body.__name__, body, when) for body in bodies)


CHECKS: tuple[SecretCheck, ...] = (
    *_collect(
        a_secret_is_its_keys_and_values,
        what_is_not_there_is_a_key_error,
        a_name_is_one_name,
        features_tell_of_several_values,
        calls_run_side_by_side,
        cancelled_calls_harm_nobody,
        it_can_be_opened_again,
    ),
    *_collect(all_secrets_come_in_bulk, when=lambda setup: setup.bulk),
)
