"""The outbox's checker: every way in which state and events can differ."""

from __future__ import annotations

import pytest
from histories.checker import History, Intent, Outcome, Receipt
from histories.faults import Kind
from histories.outbox import outbox_plan
from histories.transactions import check_outbox
from hypothesis import given
from hypothesis import strategies as st


def history(transactions, acknowledged=(), received=(), answer="SUCCESS"):
    """`transactions`: names of items by name of transaction."""
    intents = [
        Intent(item, "k", 0, name, at=1, place=place)
        for name, items in transactions.items()
        for place, item in enumerate(items)
    ]
    outcomes = [Outcome(name, name, at=2, acknowledged=name in acknowledged) for name in transactions]
    receipts = [
        Receipt(item, "k", 0, f"event-of-{item}", 10 * at, answer, 10 * at + 1 if answer else 0)
        for at, item in enumerate(received, 3)
    ]
    return History(intents, outcomes, receipts)


TWO = {"a": ["a-0", "a-1"], "b": ["b-0"]}


def test_committed_and_received():
    verdict = check_outbox(history(TWO, "ab", ["a-0", "a-1", "b-0"]), {"a-0", "a-1", "b-0"})
    assert verdict.violations == []
    assert (verdict.transactions, verdict.acknowledged, verdict.committed, verdict.received) == (2, 2, 2, 3)


def test_neither_committed_nor_received():
    verdict = check_outbox(history(TWO), set())
    assert verdict.violations == []
    assert (verdict.unknown, verdict.late) == (2, 0)


def test_committed_unknown_to_the_caller():
    verdict = check_outbox(history(TWO, "a", ["a-0", "a-1", "b-0"]), {"a-0", "a-1", "b-0"})
    assert verdict.violations == []
    assert (verdict.unknown, verdict.late) == (0, 1)


def test_acknowledged_without_state_is_undone():
    assert check_outbox(history(TWO, "b"), set()).violations == ["undone: b"]


def test_half_a_transaction_is_torn():
    assert check_outbox(history(TWO, received=["a-0"]), {"a-0"}).violations == ["torn: a"]


def test_state_without_an_event_is_silent():
    verdict = check_outbox(history(TWO, "b", ["a-0"]), {"a-0", "a-1", "b-0"})
    assert verdict.violations == ["silent: a-1", "silent: b-0"]


@pytest.mark.parametrize("answer", ["RETRY", "RAISED", ""])
def test_an_event_that_nobody_took_is_silent(answer):
    verdict = check_outbox(history(TWO, "b", ["b-0"], answer), {"b-0"})
    assert verdict.violations == ["silent: b-0"]


def test_an_event_without_state_is_a_phantom():
    assert check_outbox(history(TWO, received=["b-0"]), set()).violations == ["phantom: b-0"]


def test_an_event_of_nothing_intended_is_invented():
    assert check_outbox(history(TWO, received=["c-0"]), set()).violations == ["invented: c-0"]


def test_duplicates_are_counted():
    verdict = check_outbox(history(TWO, "b", ["b-0", "b-0", "b-0"]), {"b-0"})
    assert verdict.violations == []
    assert (verdict.received, verdict.duplicates) == (1, 2)


@given(st.dictionaries(st.integers(0, 20), st.integers(1, 3)), st.data())
def test_state_and_events_agree_or_the_difference_is_named(sizes, data):
    transactions = {f"t{n}": [f"t{n}-{i}" for i in range(size)] for n, size in sizes.items()}
    items = sorted(item for items in transactions.values() for item in items)
    some = st.sets(st.sampled_from(items)) if items else st.just(set())
    found, received = data.draw(some), data.draw(some)
    verdict = check_outbox(history(transactions, received=sorted(received)), found)
    assert set(verdict.silent) == found - received
    assert set(verdict.phantom) == received - found
    assert verdict.undone == verdict.invented == ()
    assert set(verdict.torn) == {
        name for name, ids in transactions.items() if 0 < len(found.intersection(ids)) < len(ids)
    }


def test_plans_are_their_seeds():
    plans = [outbox_plan(seed, 6) for seed in range(20)]
    assert plans == [outbox_plan(seed, 6) for seed in range(20)]
    assert len({one.kills for one in plans}) == 20
    assert all(len(one.kills) == 6 for one in plans)
    assert {bool(one.faults) for one in plans} == {True, False}
    assert {fault.kind for one in plans for fault in one.faults} == set(Kind)
