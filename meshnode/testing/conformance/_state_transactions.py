"""Checks of transactions: all or nothing, in order, alone."""

from __future__ import annotations

import trio

from meshnode.errors import EtagMismatch, StateError
from meshnode.interfaces import (
    Concurrency,
    DeleteRequest,
    Feature,
    GetRequest,
    SetRequest,
    StateOperation,
)
from meshnode.testing.conformance._state_check import Probe, collect, expect, refused

__all__ = ["CHECKS"]


async def transaction_does_everything(probe: Probe) -> None:
    await probe.save("old", b"old")
    await probe.store.transact(
        [
            SetRequest(probe.key("new"), b"\x00\xff"),
            DeleteRequest(probe.key("old")),
            SetRequest(probe.key("empty"), b""),
            DeleteRequest(probe.key("never-there")),
        ],
        {},
    )
    expect(await probe.value("new") == b"\x00\xff", "the write is missing")
    expect(await probe.get("old") is None, "the delete is missing")
    expect(await probe.value("empty") == b"", "the empty value is missing")
    await probe.store.transact([], {})


async def transaction_keeps_the_order(probe: Probe) -> None:
    key = probe.key("k")
    await probe.store.transact([SetRequest(key, b"1"), SetRequest(key, b"2"), SetRequest(key, b"3")], {})
    expect(await probe.value("k") == b"3", "the last write of a transaction wins")
    await probe.store.transact([SetRequest(key, b"4"), DeleteRequest(key)], {})
    expect(await probe.get("k") is None, "write, then delete")
    await probe.store.transact([DeleteRequest(key), SetRequest(key, b"5")], {})
    expect(await probe.value("k") == b"5", "delete, then write")


async def failed_transaction_leaves_no_trace(probe: Probe) -> None:
    """Wherever in it the failing operation stands, and whatever it is."""
    await probe.save("guard", b"1")
    stale = (await probe.found("guard")).etag
    await probe.save("guard", b"2")
    await probe.save("victim", b"kept")
    guard = probe.key("guard")
    failing: list[StateOperation] = [
        SetRequest(guard, b"never", etag=stale),
        DeleteRequest(guard, etag=stale),
        SetRequest(guard, b"never", concurrency=Concurrency.FIRST_WRITE),
    ]
    others: list[StateOperation] = [
        SetRequest(probe.key("created"), b"never"),
        SetRequest(probe.key("victim"), b"never"),
        DeleteRequest(probe.key("victim")),
    ]
    for bad in failing:
        for position in range(len(others) + 1):
            with refused(EtagMismatch, f"a transaction with {bad}"):
                await probe.store.transact([*others[:position], bad, *others[position:]], {})
            expect(await probe.get("created") is None, "a failed transaction created a key")
            expect(await probe.value("victim") == b"kept", "a failed transaction changed a key")
            expect(await probe.value("guard") == b"2", "a failed transaction changed its guard")


async def transaction_changes_etags(probe: Probe) -> None:
    await probe.save("a", b"1")
    before = (await probe.found("a")).etag
    await probe.store.transact([SetRequest(probe.key("a"), b"2", etag=before)], {})
    after = (await probe.found("a")).etag
    expect(after != before, "a write in a transaction must change the etag")
    await probe.store.transact([DeleteRequest(probe.key("a"), etag=after)], {})
    expect(await probe.get("a") is None, "delete by the right etag in a transaction")


async def transaction_sets_an_expiry(probe: Probe) -> None:
    await probe.store.transact(
        [
            SetRequest(probe.key("short"), b"x", ttl=1),
            SetRequest(probe.key("long"), b"x", ttl=600),
        ],
        {},
    )
    expect(await probe.value("short") == b"x", "gone at once")
    await trio.sleep(2.2)
    expect(await probe.get("short") is None, "the value outlived its time to live")
    expect(await probe.value("long") == b"x", "the value expired too early")


async def large_transaction(probe: Probe) -> None:
    keys = [probe.key(f"k{number}") for number in range(200)]
    await probe.store.transact([SetRequest(key, key.encode() * 20) for key in keys], {})
    answers = await probe.store.bulk_get([GetRequest(key) for key in keys], 0)
    for key, answer in zip(keys, answers, strict=True):
        expect(answer.result is not None and answer.result.data == key.encode() * 20, f"{key} is wrong")


async def transactions_do_not_mix(probe: Probe) -> None:
    """Writers put the same value under several keys; the keys must agree at any end."""
    names = ["a", "b", "c"]

    async def writer(number: int) -> None:
        for turn in range(8):
            value = b"%d-%d" % (number, turn)
            order = names[number % 3 :] + names[: number % 3]
            await probe.store.transact([SetRequest(probe.key(name), value) for name in order], {})

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(writer, number)
    values = {await probe.value(name) for name in names}
    expect(len(values) == 1, f"the keys disagree: {values}")


async def transfers_keep_the_sum(probe: Probe) -> None:
    """Concurrent read-check-write transfers between accounts: those refused must leave nothing behind."""
    accounts = [f"account{number}" for number in range(3)]
    for name in accounts:
        await probe.save(name, b"100")
    done = 0

    async def clerk(number: int) -> None:
        nonlocal done
        for turn in range(10):
            source, target = accounts[(number + turn) % 3], accounts[(number + turn + 1 + turn % 2) % 3]
            a, b = await probe.found(source), await probe.found(target)
            requests = [
                SetRequest(probe.key(source), b"%d" % (int(a.data) - 7), etag=a.etag),
                SetRequest(probe.key(target), b"%d" % (int(b.data) + 7), etag=b.etag),
            ]
            try:
                await probe.store.transact(requests, {})
            except StateError:
                continue
            done += 1

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(clerk, number)
    total = sum([int((await probe.found(name)).data) for name in accounts])
    expect(total == 300, f"money was made or lost: {total}")
    expect(done > 0, "no transfer ever succeeded")


CHECKS = (
    *collect(
        transaction_does_everything,
        transaction_keeps_the_order,
        large_transaction,
        transactions_do_not_mix,
        needs=(Feature.TRANSACTIONAL,),
    ),
    *collect(
        failed_transaction_leaves_no_trace,
        transaction_changes_etags,
        transfers_keep_the_sum,
        needs=(Feature.TRANSACTIONAL, Feature.ETAG),
    ),
    *collect(transaction_sets_an_expiry, needs=(Feature.TRANSACTIONAL, Feature.TTL)),
)
