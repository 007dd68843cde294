"""The verdict on a run of publishers and subscribers. Pure.

What is promised, and so what is looked for:

- lost: the node acknowledged a message to its publisher, and no subscriber ever got it;
- dropped: a subscriber got a copy, and none ever answered SUCCESS for it;
- invented: a subscriber got what no publisher intended to send; altered: the id is right, the rest is not;
- disordered: within a key, a message reached a subscriber for the first time only after one that was
  published later. Of two acknowledged messages one is later when its first attempt began after the other was
  acknowledged, or when it stands further back in the one bulk call that took both.

A publisher repeats what was not acknowledged, so one message may have several copies, told apart by their
event ids. Copies and repeated deliveries are counted, not blamed: delivery is at least once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from attrs import frozen

from histories.records import Record

__all__ = ["Disorder", "History", "Intent", "Outcome", "Receipt", "Verdict", "check", "read_history"]

SUCCESS = "SUCCESS"


@final
@frozen
class Intent:
    """One attempt to publish a message. Entries of one bulk call share `call`; `place` is theirs in it."""

    id: str
    key: str
    seq: int
    call: str
    at: int
    place: int = 0


@final
@frozen
class Outcome:
    """The node's word on a message of a call. Anything but an acknowledgement says nothing for certain."""

    id: str
    call: str
    at: int
    acknowledged: bool


@final
@frozen
class Receipt:
    """One delivery. `copy` is its event id; `answer` what was answered, empty where nothing was."""

    id: str
    key: str
    seq: int
    copy: str
    at: int
    answer: str = ""
    answered_at: int = 0


@final
@frozen
class History:
    """Receipts are in the order of their times."""

    intents: Sequence[Intent] = ()
    outcomes: Sequence[Outcome] = ()
    receipts: Sequence[Receipt] = ()


@final
@frozen
class Disorder:
    """`late` was received first after `overtaken_by`, which was published after it."""

    key: str
    late: str
    overtaken_by: str


@final
@frozen
class Verdict:
    """Figures and findings. `republished`: messages with several attempts. `redeliveries`: a copy came again
    before anybody had answered SUCCESS; `duplicates`: after. `unconfirmed`: received, never acknowledged.
    """

    published: int = 0
    acknowledged: int = 0
    republished: int = 0
    received: int = 0
    deliveries: int = 0
    redeliveries: int = 0
    duplicates: int = 0
    unconfirmed: int = 0
    lost: Sequence[str] = ()
    dropped: Sequence[str] = ()
    invented: Sequence[str] = ()
    altered: Sequence[str] = ()
    disordered: Sequence[Disorder] = ()

    @property
    def settled(self) -> bool:
        """Nothing is owed any more."""
        return not self.lost and not self.dropped

    def violations(self, *, ordered: bool) -> list[str]:
        """A line each. `ordered`: the order within a key was promised."""
        found = [
            f"{what}: {one}"
            for what, ids in (
                ("lost", self.lost),
                ("dropped", self.dropped),
                ("invented", self.invented),
                ("altered", self.altered),
            )
            for one in ids
        ]
        if ordered:
            found += [f"order of {one.key}: {one.overtaken_by} before {one.late}" for one in self.disordered]
        return found


@final
@frozen
class _Message:
    """What publishers say of one message: `acknowledged_at` None where it never was."""

    key: str
    seq: int
    first_attempt: int
    attempts: int
    acknowledged_at: int | None
    call: str
    place: int


def check(history: History) -> Verdict:
    """Judge a history. The figures are of messages, but for deliveries."""
    messages = _messages(history)
    acknowledged = [key for key, one in messages.items() if one.acknowledged_at is not None]
    received = {one.id for one in history.receipts}
    redeliveries, duplicates, dropped = _copies(history.receipts)
    return Verdict(
        published=len(messages),
        acknowledged=len(acknowledged),
        republished=sum(one.attempts > 1 for one in messages.values()),
        received=len(received),
        deliveries=len(history.receipts),
        redeliveries=redeliveries,
        duplicates=duplicates,
        unconfirmed=len((received & messages.keys()) - set(acknowledged)),
        lost=tuple(one for one in acknowledged if one not in received),
        dropped=tuple(dropped),
        invented=tuple(sorted(received - messages.keys())),
        altered=tuple(sorted({one.id for one in history.receipts if _is_altered(one, messages)})),
        disordered=tuple(_disordered(history.receipts, messages)),
    )


def _messages(history: History) -> dict[str, _Message]:
    acknowledged: dict[str, Outcome] = {}
    for outcome in history.outcomes:
        if outcome.acknowledged:
            acknowledged.setdefault(outcome.id, outcome)
    attempts: dict[str, list[Intent]] = defaultdict(list)
    for intent in history.intents:
        attempts[intent.id].append(intent)
    messages = {}
    for key, intents in attempts.items():
        first = min(intents, key=lambda one: one.at)
        took = acknowledged.get(key)
        messages[key] = _Message(
            key=first.key,
            seq=first.seq,
            first_attempt=first.at,
            attempts=len(intents),
            acknowledged_at=took.at if took is not None else None,
            call=first.call,
            place=first.place,
        )
    return messages


def _is_altered(receipt: Receipt, messages: Mapping[str, _Message]) -> bool:
    message = messages.get(receipt.id)
    return message is not None and (message.key, message.seq) != (receipt.key, receipt.seq)


def _copies(receipts: Iterable[Receipt]) -> tuple[int, int, list[str]]:
    """Redeliveries, duplicates, and the copies that nobody ever took."""
    redeliveries = duplicates = 0
    copies: dict[tuple[str, str], list[Receipt]] = defaultdict(list)
    for one in receipts:
        copies[one.id, one.copy].append(one)
    dropped = []
    for (message, copy), deliveries in copies.items():
        taken = [one.answered_at for one in deliveries if one.answer == SUCCESS]
        if not taken:
            dropped.append(f"{message} ({copy})")
        for again in sorted(deliveries, key=lambda one: one.at)[1:]:
            if taken and min(taken) < again.at:
                duplicates += 1
            else:
                redeliveries += 1
    return redeliveries, duplicates, dropped


def _disordered(receipts: Iterable[Receipt], messages: Mapping[str, _Message]) -> list[Disorder]:
    by_key: dict[str, dict[str, _Message]] = defaultdict(dict)
    for one in sorted(receipts, key=lambda one: one.at):
        message = messages.get(one.id)
        if message is not None and message.acknowledged_at is not None:
            by_key[message.key].setdefault(one.id, message)
    return [found for key, order in by_key.items() for found in _disordered_in(key, order)]


def _disordered_in(key: str, order: Mapping[str, _Message]) -> list[Disorder]:
    """`order` has a key's acknowledged messages as they were received first. One finding per late message."""
    found = []
    latest: str | None = None  # of those received so far, the one whose first attempt was last
    furthest: dict[str, str] = {}  # in each bulk call that took its entries at once
    for late, message in order.items():
        acknowledged_at = message.acknowledged_at or 0
        if latest is not None and order[latest].first_attempt > acknowledged_at:
            found.append(Disorder(key, late, latest))
        elif message.attempts == 1:
            ahead = furthest.get(message.call)
            if ahead is not None and order[ahead].place > message.place:
                found.append(Disorder(key, late, ahead))
        if latest is None or message.first_attempt > order[latest].first_attempt:
            latest = late
        if message.attempts == 1:
            ahead = furthest.get(message.call)
            if ahead is None or message.place > order[ahead].place:
                furthest[message.call] = late
    return found


def read_history(records: Iterable[Record]) -> History:
    """From what the processes wrote. An answer belongs to the delivery of its number."""
    intents, outcomes = [], []
    receipts: list[Record] = []
    answers: dict[str, Record] = {}
    for one in records:
        match one["what"]:
            case "intent":
                intents.append(
                    Intent(one["id"], one["key"], one["seq"], one["call"], one["at"], one["place"])
                )
            case "acknowledged" | "failed":
                taken = one["what"] == "acknowledged"
                outcomes.append(Outcome(one["id"], one["call"], one["at"], taken))
            case "received":
                receipts.append(one)
            case "answered":
                answers[one["delivery"]] = one
    none: Record = {"answer": "", "at": 0}
    return History(
        intents,
        outcomes,
        [
            Receipt(one["id"], one["key"], one["seq"], one["copy"], one["at"], answer["answer"], answer["at"])
            for one in sorted(receipts, key=lambda one: one["at"])
            for answer in [answers.get(one["delivery"], none)]
        ],
    )
