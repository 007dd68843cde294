"""The conformance suite itself: a sound store passes, and each kind of broken store is caught by a check
meant for it.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from meshnode_state_in_memory import MemoryStore

from meshnode.errors import BulkStateError, EtagMismatch, StateError
from meshnode.interfaces import (
    BulkGetResult,
    Concurrency,
    DeleteRequest,
    GetRequest,
    GetResult,
    QueryResult,
    SetRequest,
)
from meshnode.testing.conformance import state


class Wrapper:
    """A sound store, for subclasses to break."""

    def __init__(self):
        self.inner = MemoryStore(wall=lambda: 0.0, rng=random.Random(1))

    def __getattr__(self, name):
        return getattr(self.inner, name)

    @property
    def features(self):
        return self.inner.features

    async def get(self, request):
        return await self.inner.get(request)

    async def bulk_get(self, requests, parallelism):
        return [BulkGetResult(request.key, await self.get(request)) for request in requests]

    async def set(self, request):
        await self.inner.set(request)

    async def bulk_set(self, requests):
        await self.each(self.set, requests)

    async def delete(self, request):
        await self.inner.delete(request)

    async def bulk_delete(self, requests):
        await self.each(self.delete, requests)

    async def transact(self, operations, metadata):
        await self.inner.transact(operations, metadata)

    async def query(self, request):
        return await self.inner.query(request)

    async def ping(self):
        await self.inner.ping()

    @staticmethod
    async def each(function, requests):
        failures = {}
        for position, request in enumerate(requests):
            try:
                await function(request)
            except StateError as error:
                failures[position] = error
        if failures:
            raise BulkStateError(failures)


class LosesEmptyValues(Wrapper):
    async def get(self, request):
        result = await super().get(request)
        return result if result is None or result.data else None


class FoldsCase(Wrapper):
    async def get(self, request):
        return await super().get(attrs.evolve(request, key=request.key.lower()))

    async def set(self, request):
        await super().set(attrs.evolve(request, key=request.key.lower()))


class IgnoresEtags(Wrapper):
    async def set(self, request):
        await super().set(attrs.evolve(request, etag=None))


class IgnoresFirstWrite(Wrapper):
    async def set(self, request):
        await super().set(attrs.evolve(request, concurrency=Concurrency.LAST_WRITE))


class DeletesDespiteEtag(Wrapper):
    async def delete(self, request):
        await super().delete(attrs.evolve(request, etag=None))


class KeepsForEver(Wrapper):
    async def set(self, request):
        await super().set(attrs.evolve(request, ttl=None))


class RepeatsEtags(Wrapper):
    async def get(self, request):
        result = await super().get(request)
        return result and attrs.evolve(result, etag="1")


class StopsAtFirstFailure(Wrapper):
    @staticmethod
    async def each(function, requests):
        for position, request in enumerate(requests):
            try:
                await function(request)
            except StateError as error:
                raise BulkStateError({position: error}) from error


class AnswersOutOfOrder(Wrapper):
    async def bulk_get(self, requests, parallelism):
        return (await super().bulk_get(requests, parallelism))[::-1]


class DoesNotRollBack(Wrapper):
    async def transact(self, operations, metadata):
        for operation in operations:
            await (self.set if isinstance(operation, SetRequest) else self.delete)(operation)


class MixesTransactions(Wrapper):
    """Checks first, then lets others in between."""

    async def transact(self, operations, metadata):
        for operation in operations:
            await trio.lowlevel.checkpoint()
            await (self.set if isinstance(operation, SetRequest) else self.delete)(operation)


class ChecksThenWrites(Wrapper):
    """The classic race: the condition is looked at, and a moment later the value is written."""

    async def set(self, request):
        found = await self.get(GetRequest(request.key))
        if request.etag and (found is None or found.etag != request.etag):
            raise EtagMismatch("mismatch")
        if not request.etag and request.concurrency is Concurrency.FIRST_WRITE and found is not None:
            raise EtagMismatch("exists")
        await trio.lowlevel.checkpoint()
        await super().set(SetRequest(request.key, request.value, ttl=request.ttl))


class SwapsAnswers(Wrapper):
    """Coalesces badly: when it is busy, a caller gets its neighbour's answer."""

    def __init__(self):
        super().__init__()
        self.previous = None

    async def set(self, request):
        try:
            await super().set(request)
            mine = None
        except StateError as error:
            mine = error
        before, self.previous = self.previous, mine
        await trio.lowlevel.checkpoint()
        if before is not None:
            raise before


class DiesOfCancellation(Wrapper):
    """A call that is cancelled, wherever it was, leaves the store locked for ever."""

    def __init__(self):
        super().__init__()
        self.stuck = False

    async def set(self, request):
        if self.stuck:
            await trio.sleep_forever()
        done = False
        try:
            await trio.sleep(0.001)
            await super().set(request)
            done = True
        finally:
            self.stuck |= not done


class IgnoresPrefix(Wrapper):
    async def query(self, request):
        return await super().query(attrs.evolve(request, key_prefix=""))


class ForgetsToSort(Wrapper):
    async def query(self, request):
        return await super().query(attrs.evolve(request, sort=()))


class NeverTurnsThePage(Wrapper):
    async def query(self, request):
        return QueryResult((await super().query(request)).items)


class GivesByteArrays(Wrapper):
    async def get(self, request):
        result = await super().get(request)
        return result and GetResult(bytearray(result.data), result.etag)


BROKEN = {
    LosesEmptyValues: "values_come_back_byte_for_byte",
    FoldsCase: "odd_keys_are_kept_apart",
    IgnoresEtags: "writes_with_an_etag",
    IgnoresFirstWrite: "first_write",
    DeletesDespiteEtag: "writes_with_an_etag",
    KeepsForEver: "time_to_live",
    RepeatsEtags: "every_write_changes_the_etag",
    StopsAtFirstFailure: "bulk_calls_try_everything",
    AnswersOutOfOrder: "bulk_get_answers_in_order",
    DoesNotRollBack: "failed_transaction_leaves_no_trace",
    MixesTransactions: "transactions_do_not_mix",
    ChecksThenWrites: "first_write_has_one_winner",
    SwapsAnswers: "errors_stay_with_their_caller",
    DiesOfCancellation: "cancelled_calls_harm_nobody",
    IgnoresPrefix: "query_survives_other_values",
    ForgetsToSort: "query_sorts",
    NeverTurnsThePage: "query_pages",
    GivesByteArrays: "values_come_back_byte_for_byte",
}


def opener(kind):
    @asynccontextmanager
    async def open_store():
        store = kind()
        # What another check or another run left behind is none of a check's business.
        await store.inner.set(SetRequest("somebody else's", b'{"state": "CA", "person": {"id": 7}}'))
        yield store
        await store.inner.delete(DeleteRequest("somebody else's"))

    return open_store


async def test_a_sound_store_passes(autojump_clock):
    names = await state.run_state_conformance(opener(Wrapper))
    assert names == [check.name for check in state.CHECKS]


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_broken_store_is_caught(kind, autojump_clock):
    (check,) = [check for check in state.CHECKS if check.name == BROKEN[kind]]
    with pytest.raises((state.ConformanceError, EtagMismatch, trio.TooSlowError)):
        await check.run(opener(kind))
