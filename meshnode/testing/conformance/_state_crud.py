"""Checks of single and bulk reads and writes, etags and time to live."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import trio

from meshnode.errors import BulkStateError, EtagMismatch, StateError
from meshnode.interfaces import (
    Concurrency,
    Consistency,
    DeleteRequest,
    Feature,
    GetRequest,
    SetRequest,
    StateOperation,
    StateStore,
)
from meshnode.testing.conformance._state_check import ConformanceError, Probe, collect, expect, refused

__all__ = ["CHECKS"]

_ODD_NAMES = (
    "with space",
    "sla/sh",
    "colon:and;semi",
    "percent%25",
    "star*?[x]",
    "quote'\"`",
    "{tag}key",
    "back\\slash",
    "új-ключ-鍵-🔑",
    "new\nline",
    "k" * 400,
)


async def fulfils_the_protocol(probe: Probe) -> None:
    expect(isinstance(probe.store, StateStore), "the object lacks a method of StateStore")
    expect(isinstance(probe.store.features, frozenset), "features must be a frozenset")


async def ping_answers(probe: Probe) -> None:
    await probe.store.ping()


async def missing_key_is_none(probe: Probe) -> None:
    expect(await probe.get("nothing") is None, "a key never written must read as None")


async def save_read_overwrite_delete(probe: Probe) -> None:
    await probe.save("k", b'{"n": 1}')
    first = await probe.found("k")
    expect(first.data == b'{"n": 1}', "the value read is not the value written")
    await probe.save("k", b"2")
    expect(await probe.value("k") == b"2", "the second write did not replace the first")
    await probe.remove("k")
    expect(await probe.get("k") is None, "the key is still there after delete")


async def deleting_nothing_succeeds(probe: Probe) -> None:
    await probe.remove("never-there")


async def values_come_back_byte_for_byte(probe: Probe) -> None:
    values = {
        "empty": b"",
        "zero": b"\0",
        "all-bytes": bytes(range(256)) * 3,
        "not-utf8": b"\xff\xfe\xfd",
        "text": "žluťoučký 🐎".encode(),
        "json": b'{"b": 1,  "a":[1.0, null]}',
        "crlf": b"a\r\nb\r\n$3\r\n",
        "mebibyte": bytes(range(256)) * 4096,
    }
    for name, value in values.items():
        await probe.save(name, value)
    for name, value in values.items():
        data = await probe.value(name)
        expect(data == value, f"value {name} came back changed")
        expect(type(data) is bytes, "values are bytes")


async def odd_keys_are_kept_apart(probe: Probe) -> None:
    for number, name in enumerate(_ODD_NAMES):
        await probe.save(name, b"%d" % number)
    for number, name in enumerate(_ODD_NAMES):
        expect(await probe.value(name) == b"%d" % number, f"key {name!r} lost its value")
    await probe.save("Case", b"upper")
    await probe.save("case", b"lower")
    expect(await probe.value("Case") == b"upper", "keys are told apart by case")


async def consistency_hints_are_accepted(probe: Probe) -> None:
    for consistency in Consistency:
        await probe.store.set(SetRequest(probe.key("c"), b"x", consistency=consistency))
        result = await probe.store.get(GetRequest(probe.key("c"), consistency))
        expect(result is not None and result.data == b"x", f"lost under {consistency}")
        await probe.store.delete(DeleteRequest(probe.key("c"), consistency=consistency))


async def bulk_get_answers_in_order(probe: Probe) -> None:
    names = [f"n{number}" for number in range(40)]
    for name in names[::2]:
        await probe.save(name, name.encode())
    for parallelism in (0, 1, 10):
        requests = [GetRequest(probe.key(name)) for name in [*names, names[0]]]
        answers = await probe.store.bulk_get(requests, parallelism)
        expect(
            [one.key for one in answers] == [one.key for one in requests], "answers must follow the requests"
        )
        for number, answer in enumerate(answers[:-1]):
            expect(answer.error is None, f"unexpected error {answer.error!r}")
            data = answer.result.data if answer.result is not None else None
            expect(
                data == (names[number].encode() if number % 2 == 0 else None), f"{names[number]}: {data!r}"
            )
        last = answers[-1].result
        expect(last is not None and last.data == b"n0", "a key asked for twice is answered twice")
    expect(list(await probe.store.bulk_get([], 0)) == [], "no requests, no answers")


async def bulk_set_and_delete(probe: Probe) -> None:
    keys = [probe.key(f"b{number}") for number in range(30)]
    await probe.store.bulk_set([SetRequest(key, key.encode()) for key in keys])
    for key in keys:
        result = await probe.store.get(GetRequest(key))
        expect(result is not None and result.data == key.encode(), "a bulk write got lost")
    await probe.store.bulk_delete([DeleteRequest(key) for key in keys[:20]])
    answers = await probe.store.bulk_get([GetRequest(key) for key in keys], 0)
    expect(
        [one.result is None for one in answers] == [True] * 20 + [False] * 10, "bulk delete removed others"
    )
    await probe.store.bulk_set([])
    await probe.store.bulk_delete([])


async def bulk_calls_try_everything(probe: Probe) -> None:
    await probe.save("old", b"old")
    stale = (await probe.found("old")).etag
    await probe.save("old", b"new")
    requests = [
        SetRequest(probe.key("before"), b"1"),
        SetRequest(probe.key("old"), b"never", etag=stale),
        SetRequest(probe.key("after"), b"2"),
    ]
    await _fails_at(probe, requests, {1})
    expect(await probe.value("old") == b"new", "the stale write went through")
    expect(await probe.value("before") == b"1", "an entry before the failing one was not written")
    expect(await probe.value("after") == b"2", "an entry after the failing one was not written")
    await _fails_at(probe, [*requests, SetRequest(probe.key("old"), b"never", etag=stale)], {1, 3})
    deletions = [
        DeleteRequest(probe.key("before")),
        DeleteRequest(probe.key("old"), etag=stale),
        DeleteRequest(probe.key("after")),
    ]
    await _fails_at(probe, deletions, {1})
    expect(await probe.value("old") == b"new", "the stale delete went through")
    expect(await probe.get("before") is None, "an entry before the failing one was not deleted")
    expect(await probe.get("after") is None, "an entry after the failing one was not deleted")


async def _fails_at(probe: Probe, requests: Sequence[StateOperation], positions: set[int]) -> None:
    """The bulk call must fail with etag mismatches at exactly these positions."""
    sets = [request for request in requests if isinstance(request, SetRequest)]
    deletions = [request for request in requests if isinstance(request, DeleteRequest)]
    try:
        if sets:
            await probe.store.bulk_set(sets)
        else:
            await probe.store.bulk_delete(deletions)
    except BulkStateError as error:
        expect(set(error.failures) == positions, f"failures at {sorted(error.failures)}")
        expect(all(isinstance(one, EtagMismatch) for one in error.failures.values()), "not an EtagMismatch")
    else:
        raise ConformanceError("a bulk call with a stale etag must raise BulkStateError")


async def every_write_changes_the_etag(probe: Probe) -> None:
    seen = set()
    for number in range(5):
        await probe.save("e", b"%d" % number)
        seen.add((await probe.found("e")).etag)
    expect(len(seen) == 5, "an etag was used twice")
    expect("" not in seen, "an etag must not be empty")
    again = await probe.store.bulk_get([GetRequest(probe.key("e"))], 0)
    expect(again[0].result is not None and again[0].result.etag in seen, "bulk get gives the same etags")


async def writes_with_an_etag(probe: Probe) -> None:
    await probe.save("e", b"1")
    etag = (await probe.found("e")).etag
    await probe.store.set(SetRequest(probe.key("e"), b"2", etag=etag))
    with refused(EtagMismatch, "a stale etag"):
        await probe.store.set(SetRequest(probe.key("e"), b"3", etag=etag))
    with refused(EtagMismatch, "a stale etag on delete"):
        await probe.store.delete(DeleteRequest(probe.key("e"), etag=etag))
    expect(await probe.value("e") == b"2", "a refused write changed the value")
    fresh = (await probe.found("e")).etag
    with refused(EtagMismatch, "an etag for a key that is not there"):
        await probe.store.set(SetRequest(probe.key("gone"), b"x", etag=fresh))
    with refused(EtagMismatch, "delete by etag of a key that is not there"):
        await probe.store.delete(DeleteRequest(probe.key("gone"), etag=fresh))
    expect(await probe.get("gone") is None, "a refused write created the key")
    await probe.store.set(SetRequest(probe.key("e"), b"4", etag=""))
    await probe.store.delete(DeleteRequest(probe.key("e"), etag=(await probe.found("e")).etag))
    expect(await probe.get("e") is None, "delete by the right etag")


async def a_new_life_has_a_new_etag(probe: Probe) -> None:
    """Delete and write again: the etag of the first life must not open the second one's door."""
    await probe.save("e", b"1")
    await probe.save("e", b"2")
    etag = (await probe.found("e")).etag
    await probe.remove("e")
    await probe.save("e", b"3")
    with refused(EtagMismatch, "the etag of a deleted predecessor"):
        await probe.store.set(SetRequest(probe.key("e"), b"4", etag=etag))


async def garbage_etag_is_refused(probe: Probe) -> None:
    """As invalid or as a mismatch: some stores can tell, others cannot."""
    await probe.save("e", b"1")
    for etag in ("no such etag", "-1x", "🙃"):
        with refused(StateError, f"etag {etag!r}"):
            await probe.store.set(SetRequest(probe.key("e"), b"2", etag=etag))
        with refused(StateError, f"etag {etag!r} on delete"):
            await probe.store.delete(DeleteRequest(probe.key("e"), etag=etag))
    expect(await probe.value("e") == b"1", "a refused write changed the value")


async def first_write(probe: Probe) -> None:
    async def write(name: str, value: bytes, etag: str | None = None) -> None:
        request = SetRequest(probe.key(name), value, etag=etag, concurrency=Concurrency.FIRST_WRITE)
        await probe.store.set(request)

    for empty in (None, ""):
        name = f"f{empty!r}"
        await write(name, b"1", empty)
        with refused(EtagMismatch, "a second first-write"):
            await write(name, b"2", empty)
        expect(await probe.value(name) == b"1", "the second first-write went through")
        etag = (await probe.found(name)).etag
        await write(name, b"3", etag)
        with refused(EtagMismatch, "first-write with a stale etag"):
            await write(name, b"4", etag)
        expect(await probe.value(name) == b"3", "a stale first-write went through")
    await probe.save("plain", b"1")
    with refused(EtagMismatch, "a first-write on a key that exists"):
        await write("plain", b"2")
    await probe.remove("plain")
    await write("plain", b"3")
    expect(await probe.value("plain") == b"3", "a first-write after delete")


async def time_to_live(probe: Probe) -> None:
    """One check for all of it, since it has to wait."""

    async def write(name: str, ttl: int | None) -> None:
        await probe.store.set(SetRequest(probe.key(name), b"x", ttl=ttl))

    for name, ttl in (("short", 1), ("long", 600), ("none", None), ("minus", -1)):
        await write(name, ttl)
    await write("kept", 1)
    await write("kept", -1)
    await write("extended", 1)
    await write("extended", 600)
    for name in ("short", "long", "none", "minus", "kept", "extended"):
        expect(await probe.value(name) == b"x", f"{name} is gone at once")
    limited = (await probe.found("long")).metadata
    if "ttlExpireTime" in limited:
        expect(
            datetime.fromisoformat(limited["ttlExpireTime"]).tzinfo is not None, "ttlExpireTime has no zone"
        )
    expect("ttlExpireTime" not in (await probe.found("none")).metadata, "a value without expiry reports one")
    stale = (await probe.found("short")).etag
    await trio.sleep(2.2)
    expect(await probe.get("short") is None, "the value outlived its time to live")
    answers = await probe.store.bulk_get([GetRequest(probe.key("short"))], 0)
    expect(answers[0].result is None, "bulk get found an expired value")
    for name in ("long", "none", "minus", "kept", "extended"):
        expect(await probe.value(name) == b"x", f"{name} expired too early")
    with refused(EtagMismatch, "the etag of an expired value"):
        await probe.store.set(SetRequest(probe.key("short"), b"y", etag=stale))
    await probe.store.set(SetRequest(probe.key("short"), b"y", concurrency=Concurrency.FIRST_WRITE))
    expect(await probe.value("short") == b"y", "a first-write must succeed once the old value expired")


CHECKS = (
    *collect(
        fulfils_the_protocol,
        ping_answers,
        missing_key_is_none,
        save_read_overwrite_delete,
        deleting_nothing_succeeds,
        values_come_back_byte_for_byte,
        odd_keys_are_kept_apart,
        consistency_hints_are_accepted,
        bulk_get_answers_in_order,
        bulk_set_and_delete,
    ),
    *collect(
        bulk_calls_try_everything,
        every_write_changes_the_etag,
        writes_with_an_etag,
        a_new_life_has_a_new_etag,
        garbage_etag_is_refused,
        first_write,
        needs=(Feature.ETAG,),
    ),
    *collect(time_to_live, needs=(Feature.ETAG, Feature.TTL)),
)
