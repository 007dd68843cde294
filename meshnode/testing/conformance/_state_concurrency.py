"""Checks of concurrent use and of cancellation."""

from __future__ import annotations

import trio

from meshnode.errors import EtagMismatch, StateError
from meshnode.interfaces import Concurrency, DeleteRequest, Feature, GetRequest, SetRequest
from meshnode.testing.conformance._state_check import Probe, collect, expect

__all__ = ["CHECKS"]


async def first_write_has_one_winner(probe: Probe) -> None:
    """Many writers, one empty key, round after round: exactly one succeeds, and its value is there."""
    for turn in range(20):
        name = f"round{turn}"
        winners: list[bytes] = []

        async def writer(number: int, name: str = name, winners: list[bytes] = winners) -> None:
            value = b"writer %d" % number
            request = SetRequest(probe.key(name), value, concurrency=Concurrency.FIRST_WRITE)
            try:
                await probe.store.set(request)
            except EtagMismatch:
                return
            winners.append(value)

        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(writer, number)
        expect(len(winners) == 1, f"{len(winners)} first writers won")
        expect(await probe.value(name) == winners[0], "the value is not the winner's")


async def one_etag_has_one_winner(probe: Probe) -> None:
    """The same with an etag that everybody read."""
    await probe.save("k", b"start")
    for _ in range(20):
        etag = (await probe.found("k")).etag
        winners: list[bytes] = []

        async def writer(number: int, etag: str = etag, winners: list[bytes] = winners) -> None:
            value = b"writer %d" % number
            request = SetRequest(probe.key("k"), value, etag=etag, concurrency=Concurrency.FIRST_WRITE)
            try:
                await probe.store.set(request)
            except EtagMismatch:
                return
            winners.append(value)

        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(writer, number)
        expect(len(winners) == 1, f"{len(winners)} writers won with one etag")
        expect(await probe.value("k") == winners[0], "the value is not the winner's")


async def counter_by_optimistic_locking(probe: Probe) -> None:
    """Read, add one, write with the etag, again on a mismatch: no increment is lost."""
    await probe.save("n", b"0")

    async def worker() -> None:
        for _ in range(5):
            while True:
                current = await probe.found("n")
                value = b"%d" % (int(current.data) + 1)
                try:
                    await probe.store.set(SetRequest(probe.key("n"), value, etag=current.etag))
                except EtagMismatch:
                    continue
                break

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(worker)
    expect(await probe.value("n") == b"40", "increments were lost")


async def many_callers_at_once(probe: Probe) -> None:
    """Each caller sees its own writes, however many there are."""

    async def caller(number: int) -> None:
        name = f"caller{number}"
        for turn in range(5):
            value = b"%d:%d" % (number, turn)
            await probe.save(name, value)
            expect(await probe.value(name) == value, "a caller read something other than what it had written")
        await probe.remove(name)
        expect(await probe.get(name) is None, "a caller found what it had deleted")

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(caller, number)


async def _cancel_some(probe: Probe, kind: str, turn: int) -> None:
    """Starts a crowd and cancels every third, before it starts or in flight; the others must be served."""
    scopes = [trio.CancelScope() for _ in range(12)]
    served: set[int] = set()

    async def caller(number: int) -> None:
        key = probe.key(f"{kind}{turn}-{number}")
        with scopes[number]:
            if kind == "set":
                await probe.store.set(SetRequest(key, b"x"))
            elif kind == "transact":
                await probe.store.transact([SetRequest(key, b"x"), SetRequest(key + "b", b"x")], {})
            elif kind == "delete":
                await probe.store.delete(DeleteRequest(key))
            else:
                await probe.store.bulk_get([GetRequest(key), GetRequest(key + "b")], 0)
            served.add(number)

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(caller, number)
        for _ in range(turn):
            await trio.lowlevel.checkpoint()
        for scope in scopes[::3]:
            scope.cancel()
    wanted = {number for number in range(12) if number % 3}
    expect(wanted <= served, f"cancelling some callers of {kind} lost others: {sorted(wanted - served)}")
    if kind == "set":
        for number in served:
            expect(await probe.value(f"set{turn}-{number}") == b"x", "a write that returned is not there")


async def cancelled_calls_harm_nobody(probe: Probe) -> None:
    kinds = ["set", "delete", "bulk_get"]
    if Feature.TRANSACTIONAL in probe.store.features:
        kinds.append("transact")
    for kind in kinds:
        for turn in range(8):
            with trio.fail_after(30):
                await _cancel_some(probe, kind, turn)
    await probe.store.ping()
    await probe.save("after", b"fine")
    expect(await probe.value("after") == b"fine", "the store does not work after cancelled calls")


async def cancelled_transaction_is_whole(probe: Probe) -> None:
    """A transaction that is cancelled in flight happened or did not, but never by half."""
    for turn in range(12):
        names = [f"t{turn}-{number}" for number in range(4)]

        async def writer(scope: trio.CancelScope, names: list[str] = names) -> None:
            with scope:
                await probe.store.transact([SetRequest(probe.key(name), b"x") for name in names], {})

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer, scope)
            for _ in range(turn):
                await trio.lowlevel.checkpoint()
            scope.cancel()
        # It may still be landing while we look; what is half done now must be whole, or gone, soon.
        for _ in range(100):
            present = [await probe.get(name) is not None for name in names]
            if all(present) or not any(present):
                break
            await trio.sleep(0.02)
        expect(all(present) or not any(present), f"half a transaction: {present}")


async def errors_stay_with_their_caller(probe: Probe) -> None:
    """In a crowd where half the callers must fail, each gets its own answer."""
    await probe.save("k", b"1")
    stale = (await probe.found("k")).etag
    await probe.save("k", b"2")
    wrong: list[int] = []

    async def caller(number: int) -> None:
        key = probe.key("k" if number % 2 else f"own{number}")
        request = SetRequest(key, b"%d" % number, etag=stale if number % 2 else None)
        failed = False
        try:
            await probe.store.set(request)
        except StateError:
            failed = True
        if failed is not bool(number % 2):
            wrong.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(caller, number)
    expect(not wrong, f"callers got each other's answers: {wrong}")
    for number in range(0, 40, 2):
        expect(await probe.value(f"own{number}") == b"%d" % number, "a neighbour's failure lost a write")


CHECKS = (
    *collect(many_callers_at_once, cancelled_calls_harm_nobody),
    *collect(
        first_write_has_one_winner,
        one_etag_has_one_winner,
        counter_by_optimistic_locking,
        errors_stay_with_their_caller,
        needs=(Feature.ETAG,),
    ),
    *collect(cancelled_transaction_is_whole, needs=(Feature.TRANSACTIONAL,)),
)
