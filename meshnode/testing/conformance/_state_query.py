"""Checks of queries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from meshnode.errors import StateError
from meshnode.interfaces import (
    DeleteRequest,
    Feature,
    GetRequest,
    GetResult,
    QueryRequest,
    QueryResult,
    SetRequest,
    SortKey,
)
from meshnode.testing.conformance._state_check import Probe, collect, expect, refused

__all__ = ["CHECKS"]

_PEOPLE = {
    "1": {"person": {"org": "Dev Ops", "id": 1036}, "city": "Seattle", "state": "WA", "active": True},
    "2": {"person": {"org": "Hardware", "id": 1028}, "city": "Portland", "state": "OR", "active": False},
    "3": {"person": {"org": "Finance", "id": 1071}, "city": "Sacramento", "state": "CA", "active": True},
    "4": {"person": {"org": "Dev Ops", "id": 1042}, "city": "Spokane", "state": "WA", "active": False},
    "5": {"person": {"org": "Hardware", "id": 1007.5}, "city": "Los Angeles", "state": "CA"},
}


async def _fill(probe: Probe) -> None:
    requests = [
        SetRequest(probe.key(name), json.dumps(person).encode(), content_type="application/json")
        for name, person in _PEOPLE.items()
    ]
    await probe.store.bulk_set(requests)


def _names(probe: Probe, result: QueryResult) -> str:
    return "".join(item.key.removeprefix(probe.prefix) for item in result.items)


async def _ask(probe: Probe, condition: Mapping[str, Any] | None, *sort: SortKey) -> str:
    request = QueryRequest(filter=condition, sort=sort or (SortKey("person.id"),), key_prefix=probe.prefix)
    return _names(probe, await probe.store.query(request))


async def query_filters(probe: Probe) -> None:
    await _fill(probe)
    cases: list[tuple[Mapping[str, Any] | None, str]] = [
        (None, "52143"),
        ({"EQ": {"state": "CA"}}, "53"),
        ({"EQ": {"person.id": 1036}}, "1"),
        ({"EQ": {"person.id": "1036"}}, ""),
        ({"EQ": {"active": True}}, "13"),
        ({"NEQ": {"state": "CA"}}, "214"),
        ({"GT": {"person.id": 1036}}, "43"),
        ({"GTE": {"person.id": 1036}}, "143"),
        ({"LT": {"person.id": 1028}}, "5"),
        ({"LTE": {"person.id": 1028}}, "52"),
        ({"LT": {"city": "Q"}}, "52"),
        ({"IN": {"state": ["OR", "WA"]}}, "214"),
        ({"EQ": {"nowhere.at.all": 1}}, ""),
        ({"AND": [{"EQ": {"state": "WA"}}, {"EQ": {"person.org": "Dev Ops"}}]}, "14"),
        ({"OR": [{"EQ": {"state": "OR"}}, {"GT": {"person.id": 1070}}]}, "23"),
        (
            {
                "OR": [
                    {"EQ": {"person.org": "Finance"}},
                    {"AND": [{"EQ": {"state": "WA"}}, {"IN": {"city": ["Spokane"]}}]},
                ]
            },
            "43",
        ),
    ]
    for condition, wanted in cases:
        got = await _ask(probe, condition)
        expect(got == wanted, f"{condition}: found {got!r}, expected {wanted!r}")


async def query_sorts(probe: Probe) -> None:
    await _fill(probe)
    cases = [
        ((SortKey("person.id", descending=True),), "34125"),
        ((SortKey("city"),), "52314"),
        ((SortKey("state"), SortKey("person.id", descending=True)), "35241"),
        ((SortKey("person.org", descending=True), SortKey("city")), "52314"),
    ]
    for sort, wanted in cases:
        got = await _ask(probe, None, *sort)
        expect(got == wanted, f"{sort}: found {got!r}, expected {wanted!r}")


async def query_pages(probe: Probe) -> None:
    await _fill(probe)
    token, pages = "", []
    for _ in range(10):
        request = QueryRequest(sort=(SortKey("city"),), limit=2, token=token, key_prefix=probe.prefix)
        result = await probe.store.query(request)
        pages.append(_names(probe, result))
        token = result.token
        if not token:
            break
    expect("".join(pages) == "52314", f"the pages do not add up: {pages}")
    expect(max(map(len, pages)) <= 2, "a page exceeds its limit")


async def query_gives_values_and_etags(probe: Probe) -> None:
    await _fill(probe)
    request = QueryRequest(filter={"EQ": {"state": "OR"}}, key_prefix=probe.prefix)
    (item,) = (await probe.store.query(request)).items
    stored = await probe.store.get(GetRequest(item.key))
    expect(stored == GetResult(item.data, item.etag), "query and get disagree")
    await probe.store.delete(DeleteRequest(item.key, etag=item.etag))
    expect(not (await probe.store.query(request)).items, "a deleted key is still found")


async def query_survives_other_values(probe: Probe) -> None:
    """Values that are no JSON, or no objects, match no condition and break nothing."""
    await _fill(probe)
    for name, value in (("x", b"\xff\x00"), ("y", b"{broken"), ("z", b'"text"'), ("w", b"[1,2]"), ("v", b"")):
        await probe.save(name, value)
    got = await _ask(probe, {"OR": [{"EQ": {"state": "CA"}}, {"GT": {"person.id": 0}}]})
    expect(got == "52143", f"found {got!r}")
    other = QueryRequest(key_prefix=probe.prefix + "no such prefix")
    expect(not (await probe.store.query(other)).items, "keys outside the prefix were found")


async def malformed_queries_are_refused(probe: Probe) -> None:
    conditions: list[Mapping[str, Any]] = [
        {"LIKE": {"a": "b"}},
        {"EQ": {"a": 1, "b": 2}},
        {"EQ": "a"},
        {"IN": {"a": "b"}},
        {"AND": {"a": "b"}},
        {"EQ": {"a": 1}, "NEQ": {"b": 1}},
    ]
    for condition in conditions:
        with refused(StateError, f"{condition}"):
            await _ask(probe, condition)
    with refused(StateError, "a token that is none"):
        await probe.store.query(QueryRequest(token="nonsense", key_prefix=probe.prefix))


CHECKS = collect(
    query_filters,
    query_sorts,
    query_pages,
    query_gives_values_and_etags,
    query_survives_other_values,
    malformed_queries_are_refused,
    needs=(Feature.QUERY_API,),
)
