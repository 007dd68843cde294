"""The history checker: every promise broken by hand, sound histories of every kind, and the schedule."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from pathlib import Path

import pytest
from attrs import evolve
from histories.checker import (
    Disorder,
    History,
    Intent,
    Outcome,
    Receipt,
    check,
    read_history,
)
from histories.faults import Kind, schedule
from histories.plan import plan_of
from histories.records import Recorder, read_records
from hypothesis import given
from hypothesis import strategies as st


class Story:
    """A history told event by event; each takes a moment of its own."""

    def __init__(self):
        self.now = 0
        self.intents = []
        self.outcomes = []
        self.receipts = []

    def _moment(self):
        self.now += 1
        return self.now

    def tries(self, *seqs, key="k", call=None):
        call = call or f"call-{self.now}"
        at = self._moment()
        for place, seq in enumerate(seqs):
            self.intents.append(Intent(f"{key}-{seq}", key, seq, call, at, place))
        return call

    def hears(self, *seqs, key="k", call="", acknowledged=True):
        at = self._moment()
        for seq in seqs:
            self.outcomes.append(Outcome(f"{key}-{seq}", call, at, acknowledged))

    def publishes(self, *seqs, key="k", acknowledged=True):
        """One call, single or bulk."""
        call = self.tries(*seqs, key=key)
        self.hears(*seqs, key=key, call=call, acknowledged=acknowledged)

    def gets(self, seq, answer="SUCCESS", key="k", copy=""):
        copy = copy or f"event-of-{key}-{seq}"
        at, answered_at = self._moment(), self._moment() if answer else 0
        self.receipts.append(Receipt(f"{key}-{seq}", key, seq, copy, at, answer, answered_at))

    @property
    def history(self):
        return History(self.intents, self.outcomes, self.receipts)

    @property
    def verdict(self):
        return check(self.history)


@pytest.fixture
def story():
    return Story()


def test_nothing_happened(story):
    assert story.verdict.settled
    assert not story.verdict.violations(ordered=True)


def test_a_sound_history(story):
    for seq in range(5):
        story.publishes(seq)
        story.gets(seq)
    verdict = story.verdict
    assert not verdict.violations(ordered=True)
    assert (verdict.published, verdict.acknowledged, verdict.received, verdict.deliveries) == (5, 5, 5, 5)
    assert (verdict.redeliveries, verdict.duplicates, verdict.unconfirmed, verdict.republished) == (
        0,
        0,
        0,
        0,
    )


# --- lost and dropped


def test_an_acknowledged_message_that_nobody_got_is_lost(story):
    story.publishes(1)
    story.publishes(2)
    story.gets(1)
    assert story.verdict.lost == ("k-2",)
    assert not story.verdict.settled
    assert story.verdict.violations(ordered=False) == ["lost: k-2"]


def test_a_message_that_was_not_acknowledged_may_be_lost_or_arrive(story):
    story.publishes(1, acknowledged=False)
    story.publishes(2, acknowledged=False)
    story.tries(3)  # its publisher was killed
    story.gets(2)
    story.gets(3)
    assert not story.verdict.violations(ordered=True)
    assert story.verdict.unconfirmed == 2
    assert story.verdict.acknowledged == 0


@pytest.mark.parametrize("answer", ["RETRY", "RAISED", ""])
def test_a_message_that_came_and_was_not_taken_is_dropped_unless_it_comes_again(story, answer):
    story.publishes(1)
    story.gets(1, answer)
    assert not story.verdict.lost
    assert story.verdict.dropped == ("k-1 (event-of-k-1)",)
    assert not story.verdict.settled
    story.gets(1)
    assert story.verdict.settled
    assert (story.verdict.redeliveries, story.verdict.duplicates) == (1, 0)


def test_what_was_not_acknowledged_is_not_dropped_either_once_somebody_got_it(story):
    story.publishes(1, acknowledged=False)
    story.gets(1, "RETRY")
    assert story.verdict.dropped == ("k-1 (event-of-k-1)",)


def test_one_copy_does_not_stand_for_the_other(story):
    story.publishes(1, acknowledged=False)
    story.publishes(1)
    story.gets(1, "RETRY", copy="first")
    story.gets(1, copy="second")
    assert story.verdict.dropped == ("k-1 (first)",)


# --- invented and altered


def test_what_nobody_sent_is_invented(story):
    story.publishes(1)
    story.gets(1)
    story.gets(7)
    assert story.verdict.invented == ("k-7",)
    assert story.verdict.violations(ordered=False) == ["invented: k-7"]


def test_what_arrives_with_another_key_or_number_is_altered(story):
    story.publishes(1)
    story.gets(1)
    story.receipts[0] = evolve(story.receipts[0], seq=2)
    assert story.verdict.altered == ("k-1",)
    story.receipts[0] = evolve(story.receipts[0], seq=1, key="other")
    assert story.verdict.violations(ordered=False) == ["altered: k-1"]


# --- order


def test_a_message_that_arrives_first_after_a_later_one_breaks_the_order_of_its_key(story):
    for seq in (1, 2, 3):
        story.publishes(seq)
    for seq in (1, 3, 2):
        story.gets(seq)
    assert story.verdict.disordered == (Disorder("k", "k-2", "k-3"),)
    assert story.verdict.violations(ordered=False) == []
    assert story.verdict.violations(ordered=True) == ["order of k: k-3 before k-2"]


def test_each_late_message_is_one_finding(story):
    for seq in (1, 2, 3, 4):
        story.publishes(seq)
    for seq in (4, 1, 2, 3):
        story.gets(seq)
    assert [one.late for one in story.verdict.disordered] == ["k-1", "k-2", "k-3"]


def test_keys_have_an_order_each(story):
    story.publishes(1, key="a")
    story.publishes(1, key="b")
    story.gets(1, key="b")
    story.gets(1, key="a")
    assert not story.verdict.disordered


def test_redeliveries_and_duplicates_break_no_order(story):
    story.publishes(1)
    story.publishes(2)
    for seq in (1, 2, 1, 2, 1):
        story.gets(seq)
    assert not story.verdict.disordered
    assert (story.verdict.redeliveries, story.verdict.duplicates) == (0, 3)


def test_a_first_delivery_counts_even_where_it_failed(story):
    story.publishes(1)
    story.publishes(2)
    story.gets(1, "RETRY")
    story.gets(2)
    story.gets(1)
    assert not story.verdict.violations(ordered=True)


def test_what_was_never_acknowledged_has_no_place_in_the_order(story):
    story.publishes(1, acknowledged=False)
    story.publishes(2)
    story.gets(2)
    story.gets(1)
    assert not story.verdict.disordered


def test_a_message_that_was_repeated_stands_where_it_was_acknowledged(story):
    story.publishes(1, acknowledged=False)
    story.publishes(1)
    story.publishes(2)
    story.gets(2)
    story.gets(1, copy="second")
    assert story.verdict.disordered == (Disorder("k", "k-1", "k-2"),)


def test_messages_under_way_at_the_same_time_have_no_order(story):
    first, second = story.tries(1), story.tries(2)
    story.hears(1, call=first)
    story.hears(2, call=second)
    story.gets(2)
    story.gets(1)
    assert not story.verdict.disordered


def test_a_bulk_call_has_an_order_of_its_own(story):
    story.publishes(1, 2, 3)
    for seq in (1, 3, 2):
        story.gets(seq)
    assert story.verdict.disordered == (Disorder("k", "k-2", "k-3"),)


def test_an_entry_that_was_repeated_has_left_the_order_of_its_bulk_call(story):
    call = story.tries(1, 2, 3)
    story.hears(1, 3, call=call)
    story.hears(2, call=call, acknowledged=False)
    story.publishes(2)
    for seq in (1, 3, 2):
        story.gets(seq)
    assert not story.verdict.disordered
    story.publishes(4)
    story.gets(4)
    assert not story.verdict.disordered


def test_an_entry_overtaken_from_another_call_is_found(story):
    story.publishes(1, 2)
    story.publishes(3, 4)
    for seq in (1, 3, 2, 4):
        story.gets(seq)
    assert story.verdict.disordered == (Disorder("k", "k-2", "k-3"),)


# --- counting


def test_copies_are_told_apart(story):
    story.publishes(1, acknowledged=False)
    story.publishes(1)
    story.gets(1, copy="first")
    story.gets(1, copy="second")
    verdict = story.verdict
    assert (verdict.published, verdict.republished, verdict.received, verdict.deliveries) == (1, 1, 1, 2)
    assert (verdict.redeliveries, verdict.duplicates) == (0, 0)


def test_a_delivery_before_the_answer_to_another_is_no_duplicate(story):
    story.publishes(1)
    story.receipts += [
        Receipt("k-1", "k", 1, "c", at=10, answer="SUCCESS", answered_at=30),
        Receipt("k-1", "k", 1, "c", at=20, answer="SUCCESS", answered_at=40),
        Receipt("k-1", "k", 1, "c", at=50, answer="SUCCESS", answered_at=60),
    ]
    assert (story.verdict.redeliveries, story.verdict.duplicates) == (1, 1)


# --- at random


@st.composite
def sound(draw):
    """Publishers with keys, attempts that fail, copies, redeliveries; all promises kept."""
    rng = draw(st.randoms(use_true_random=False))
    story = Story()
    queues = defaultdict(list)
    for seq in range(draw(st.integers(0, 25))):
        key = rng.choice("abc")
        while rng.random() < 0.3:
            story.publishes(seq, key=key, acknowledged=False)
            if rng.random() < 0.5:
                queues[key].append((seq, f"copy-{story.now}"))
        if rng.random() < 0.9:
            story.publishes(seq, key=key)
            queues[key].append((seq, f"copy-{story.now}"))
    while any(queues.values()):
        key = rng.choice([name for name, queue in queues.items() if queue])
        seq, copy = queues[key][0]
        answer = rng.choice(["SUCCESS", "SUCCESS", "RETRY", ""])
        story.gets(seq, answer, key=key, copy=copy)
        if answer == "SUCCESS":
            queues[key].pop(0)
            while rng.random() < 0.2:
                story.gets(seq, key=key, copy=copy)
    return story.history


@given(sound())
def test_sound_histories_pass(history):
    verdict = check(history)
    assert verdict.settled
    assert not verdict.violations(ordered=True)
    assert verdict.acknowledged + verdict.unconfirmed >= verdict.received
    distinct = {(one.id, one.copy) for one in history.receipts}
    assert verdict.deliveries == len(distinct) + verdict.redeliveries + verdict.duplicates


@given(sound(), st.data())
def test_a_message_taken_out_of_a_sound_history_is_missed(history, data):
    acknowledged = sorted({one.id for one in history.outcomes if one.acknowledged})
    if not acknowledged:
        return
    victim = data.draw(st.sampled_from(acknowledged))
    kept = [one for one in history.receipts if one.id != victim]
    assert check(evolve(history, receipts=kept)).lost == (victim,)


@given(sound(), st.data())
def test_a_copy_never_taken_is_missed(history, data):
    if not history.receipts:
        return
    victim = data.draw(st.sampled_from(history.receipts))
    told = [
        evolve(one, answer="RETRY") if (one.id, one.copy) == (victim.id, victim.copy) else one
        for one in history.receipts
    ]
    assert check(evolve(history, receipts=told)).dropped == (f"{victim.id} ({victim.copy})",)


@given(sound())
def test_the_order_is_judged_as_its_definition_says(history):
    """Against every pair, in any order of receipts."""
    shuffled = list(history.receipts)
    random.Random(len(shuffled)).shuffle(shuffled)
    moved = [evolve(one, at=at, answered_at=at) for at, one in enumerate(shuffled)]
    history = evolve(history, receipts=moved)
    acknowledged = {one.id: one.at for one in history.outcomes if one.acknowledged}
    first_attempt = {}
    for one in history.intents:
        first_attempt.setdefault(one.id, one.at)
    first = {}
    for one in moved:
        if one.id in acknowledged:
            first.setdefault(one.id, one)
    late = {
        a.id
        for a in first.values()
        for b in first.values()
        if a.key == b.key and b.at < a.at and acknowledged[a.id] < first_attempt[b.id]
    }
    assert {one.late for one in check(history).disordered} == late


# --- what was written


def test_records_become_a_history(tmp_path: Path):
    writer = Recorder(tmp_path, "publisher")
    writer.write("intent", id="k-1", key="k", seq=1, call="c", place=0)
    writer.write("failed", id="k-1", call="c", reason="UNAVAILABLE")
    writer.write("intent", id="k-1", key="k", seq=1, call="d", place=0)
    writer.write("acknowledged", id="k-1", call="d")
    reader = Recorder(tmp_path, "subscriber")
    reader.write("listening")
    reader.write("received", delivery="s.1", id="k-1", key="k", seq=1, copy="e")
    reader.write("received", delivery="s.2", id="k-1", key="k", seq=1, copy="e")
    reader.write("answered", delivery="s.1", answer="SUCCESS")
    history = read_history(read_records(tmp_path))
    assert [one.call for one in history.intents] == ["c", "d"]
    assert [one.acknowledged for one in history.outcomes] == [False, True]
    assert [one.answer for one in history.receipts] == ["SUCCESS", ""]
    assert 0 < history.receipts[0].at < history.receipts[0].answered_at < time.monotonic_ns()
    assert not check(history).violations(ordered=True)


def test_each_start_writes_a_file_of_its_own_and_a_torn_line_is_left_out(tmp_path: Path):
    Recorder(tmp_path, "publisher").write("first")
    torn = tmp_path / "publisher.0.jsonl"
    torn.write_bytes(torn.read_bytes() + b'{"what": "tor')
    again = Recorder(tmp_path, "publisher")
    again.write("second")
    assert again.incarnation == 1
    assert [one["what"] for one in read_records(tmp_path)] == ["first", "second"]
    assert json.loads((tmp_path / "publisher.1.jsonl").read_text())["what"] == "second"


# --- the schedule


@given(st.integers(), st.floats(0, 20))
def test_a_schedule_is_its_seeds_and_keeps_its_bounds(seed, seconds):
    targets = {"nodes": ["one"], "others": ["two"], "links": ["a/b"]}
    faults = schedule(random.Random(seed), seconds, **targets)
    assert faults == schedule(random.Random(seed), seconds, **targets)
    assert [one.at for one in faults] == sorted(one.at for one in faults)
    ends: dict[str, float] = {}
    for one in faults:
        assert (one.target == "a/b") == (one.kind in (Kind.HOLD, Kind.RESET, Kind.SWALLOW))
        assert one.at >= ends.get(one.target, 0)
        assert one.end <= seconds + 1e-9
        ends[one.target] = one.end


def test_plans_differ_by_seed_and_reach_every_target():
    plans = [plan_of("redis", seed, 6) for seed in range(60)]
    assert plans == [plan_of("redis", seed, 6) for seed in range(60)]
    assert len({one.faults for one in plans}) == 60
    assert [one.ordered for one in plans[:6]] == [True, False, False, False, False, True]
    assert all(plan_of("sqlite", seed, 6).ordered for seed in range(6))
    assert {one.style for one in plans} == {"callback", "stream", "bulk"}
    assert {one.policy for one in plans} == {True, False}
    assert {(one.publishers, one.subscribers) for one in plans} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    hit = {fault.target for one in plans for fault in one.faults}
    assert {
        "publisher-0",
        "publisher-1",
        "publisher-node",
        "subscriber-1",
        "subscriber-node-1",
        "broker",
    } <= hit
    assert {"publisher-1/publisher-node", "subscriber-node-0/broker"} <= hit
    assert {fault.kind for one in plans for fault in one.faults} == set(Kind)
