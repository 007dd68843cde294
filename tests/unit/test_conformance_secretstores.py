"""The conformance suite of secret stores itself: sound ones pass, broken ones are caught."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from meshnode.interfaces import SecretFeature
from meshnode.testing.conformance import secretstores

SECRETS = {"db": {"user": "u", "password": "p"}, "api": {"api": "k"}}


class Store:
    """A sound store, for others to break."""

    features = frozenset({SecretFeature.MULTIPLE_KEY_VALUES_PER_SECRET})

    async def get(self, name, metadata):
        await trio.lowlevel.checkpoint()
        return SECRETS[name]

    async def bulk_get(self, metadata):
        await trio.lowlevel.checkpoint()
        return SECRETS


class GivesBytes(Store):
    async def get(self, name, metadata):
        return {key: value.encode() for key, value in SECRETS[name].items()}


class GivesEmptyOnes(Store):
    async def get(self, name, metadata):
        return SECRETS.get(name, {name: ""})


class TidiesNames(Store):
    async def get(self, name, metadata):
        return SECRETS[name.strip("/")]


class HidesWhatItCan(Store):
    features = frozenset()


class ForgetsOne(Store):
    async def bulk_get(self, metadata):
        return {"db": SECRETS["db"]}


class TakesOneAtATime(Store):
    busy = False

    async def get(self, name, metadata):
        if self.busy:
            return {}
        self.busy = True
        try:
            return await super().get(name, metadata)
        finally:
            self.busy = False


class StaysBusy(Store):
    busy = False

    async def get(self, name, metadata):
        if self.busy:
            await trio.sleep_forever()
        self.busy = True
        values = await super().get(name, metadata)
        self.busy = False
        return values


BROKEN = {
    GivesBytes: "a_secret_is_its_keys_and_values",
    GivesEmptyOnes: "what_is_not_there_is_a_key_error",
    TidiesNames: "a_name_is_one_name",
    HidesWhatItCan: "features_tell_of_several_values",
    ForgetsOne: "all_secrets_come_in_bulk",
    TakesOneAtATime: "calls_run_side_by_side",
    StaysBusy: "cancelled_calls_harm_nobody",
}


def setup(kind, **promises):
    @asynccontextmanager
    async def opened():
        yield kind()

    return secretstores.Setup(opened, SECRETS, **promises)


@pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
async def test_a_sound_store_passes(check, autojump_clock):
    assert await check.run(setup(Store))


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_broken_store_is_caught(kind, autojump_clock):
    (check,) = [check for check in secretstores.CHECKS if check.name == BROKEN[kind]]
    with pytest.raises(secretstores.ConformanceError) as caught:
        await check.run(setup(kind))
    assert "'p'" not in str(caught.value)


async def test_what_a_store_does_not_promise_is_not_checked(autojump_clock):
    ran = [check.name for check in secretstores.CHECKS if await check.run(setup(ForgetsOne, bulk=False))]
    assert "all_secrets_come_in_bulk" not in ran
    assert "a_name_is_one_name" in ran
