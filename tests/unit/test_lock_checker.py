"""The checker of lock histories: sound ones pass, each kind of broken one is caught."""

from __future__ import annotations

import pytest
from support.lock_checker import Answer, Operation, violations

RELEASED, ABSENT, OTHERS, UNKNOWN = Answer.RELEASED, Answer.ABSENT, Answer.OTHERS, Answer.UNKNOWN


def granted(owner: str, began: float, ended: float, token: int, seconds: float = 10) -> Operation:
    return Operation("r", owner, began, ended, Answer.GRANTED, seconds, token)


def refused(owner: str, began: float, ended: float) -> Operation:
    return Operation("r", owner, began, ended, Answer.REFUSED, 10)


def unlock(owner: str, began: float, ended: float, answer: Answer = RELEASED) -> Operation:
    return Operation("r", owner, began, ended, answer)


def lost(owner: str, began: float) -> Operation:
    return Operation("r", owner, began, seconds=10)


SOUND = {
    "nothing": [],
    "one after the other": [
        granted("a", 0, 1, 1), refused("b", 2, 3), unlock("a", 4, 5), granted("c", 6, 7, 2),
    ],
    "a release and a grant that overlap": [
        granted("a", 0, 1, 1), unlock("a", 2, 9), granted("b", 3, 4, 2),
    ],
    "expiry from the beginning": [granted("a", 0, 5, 1), granted("b", 10, 11, 2)],
    "a grant whose answer was late": [granted("a", 0, 9, 1, 2), granted("b", 3, 4, 2), unlock("b", 5, 6)],
    "a release without an answer": [
        granted("a", 0, 1, 1), unlock("a", 2, 99, UNKNOWN), granted("b", 3, 4, 2),
    ],
    "a lock without an answer was taken": [lost("a", 0), refused("b", 1, 2), unlock("a", 3, 4)],
    "a lock without an answer was not taken": [lost("a", 0), granted("b", 1, 2, 1)],
    "a release tried twice": [
        granted("a", 0, 1, 1), unlock("a", 2, 3, UNKNOWN), unlock("a", 4, 5, ABSENT),
    ],
    "a release that came late": [
        granted("a", 0, 1, 1), granted("b", 11, 12, 2), unlock("a", 13, 14, OTHERS),
    ],
    "tokens of grants that overlap": [granted("a", 0, 5, 2, 1), granted("b", 3, 4, 1, 1)],
    "resources are apart": [
        granted("a", 0, 1, 2), Operation("s", "b", 0, 1, Answer.GRANTED, 10, 1),
    ],
}  # fmt: skip

BROKEN = [
    ("a and b both held r", [granted("a", 0, 1, 1), granted("b", 2, 3, 2)]),
    ("a and b both held r", [granted("a", 0, 1, 1), granted("b", 9, 9.5, 2)]),
    ("b got token 1 after a had 2", [granted("a", 0, 1, 2), unlock("a", 2, 3), granted("b", 4, 5, 1)]),
    (
        "c got token 4 after b had 6",
        [granted("a", 0, 1, 5, 2), granted("b", 3, 4, 6, 2), granted("c", 5.5, 6, 4, 2)],
    ),
    ("have the same token 1", [granted("a", 0, 1, 1), unlock("a", 2, 3), granted("b", 4, 5, 1)]),
    (
        "b was refused r, which nobody can have held",
        [granted("a", 0, 1, 1), unlock("a", 2, 3), refused("b", 4, 5)],
    ),
    ("b was refused r, which nobody can have held", [granted("a", 0, 1, 1), refused("b", 12, 13)]),
    ("b released r, which it cannot have held", [granted("a", 0, 1, 1), unlock("b", 2, 3)]),
    ("a released r, which it cannot have held", [granted("a", 0, 1, 1), unlock("a", 12, 13)]),
    ("a had lost r before its time", [granted("a", 0, 1, 1), unlock("a", 2, 3, ABSENT)]),
]


@pytest.mark.parametrize("history", SOUND.values(), ids=SOUND)
def test_sound(history: list[Operation]) -> None:
    assert violations(history) == []
    assert violations(reversed(history)) == []


@pytest.mark.parametrize(("words", "history"), BROKEN)
def test_broken(words: str, history: list[Operation]) -> None:
    found = violations(history)
    assert any(words in one for one in found), found


def test_slack_forgives_as_much_and_no_more() -> None:
    history = [granted("a", 0, 1, 1), granted("b", 9.99, 9.995, 2)]
    assert violations(history, 0.02) == []
    assert len(violations(history, 0.001)) == 1


def test_times_that_an_outage_begins_anew():
    """Only of what was perhaps held when it began, and surely nobody holds anything for longer."""
    late = refused("b", 14, 15)
    for outages, broken in (
        ([], True),
        ([(12, 13)], True),
        ([(9, 13)], False),
        ([(2, 5)], False),
        ([(2, 3)], True),
        ([(2, 3), (12, 12.5)], False),
        ([(-2, -1)], True),
    ):
        assert bool(violations([granted("a", 0, 1, 1), late], outages=outages)) is broken, outages
    history = [granted("a", 0, 1, 1), unlock("a", 2, 3), late]
    assert violations(history, outages=[(5, 9)]), "what was released is not held again"
    history = [granted("a", 0, 1, 1), granted("b", 10, 11, 2)]
    assert violations(history, outages=[(5, 9)]) == []
    history = [granted("a", 0, 1, 1), granted("b", 8, 9, 2)]
    assert violations(history, outages=[(5, 7)]) == ["a and b both held r"]
