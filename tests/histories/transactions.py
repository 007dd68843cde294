"""The verdict on a run of the outbox: an event is received if and only if its transaction committed. Pure.

Looked for, with the state as it is read in the end:

- undone: the node acknowledged a transaction, and its state is not there;
- torn: of one transaction some of the state is there and some is not;
- silent: the state is there, and no subscriber took the event;
- phantom: a subscriber got the event, and the state is not there;
- invented: a subscriber got the event of what nobody intended to save.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import final

from attrs import frozen

from histories.checker import SUCCESS, History, check

__all__ = ["OutboxVerdict", "check_outbox"]


@final
@frozen
class OutboxVerdict:
    """Figures are of transactions, but for `saved`, `received` and `duplicates`, which are of items.
    `unknown`: neither acknowledged nor, as it turned out, committed; `late`: committed without the caller's
    knowledge.
    """

    transactions: int = 0
    acknowledged: int = 0
    committed: int = 0
    late: int = 0
    unknown: int = 0
    saved: int = 0
    received: int = 0
    duplicates: int = 0
    undone: Sequence[str] = ()
    torn: Sequence[str] = ()
    silent: Sequence[str] = ()
    phantom: Sequence[str] = ()
    invented: Sequence[str] = ()

    @property
    def violations(self) -> list[str]:
        """A line each."""
        findings = ("undone", "torn", "silent", "phantom", "invented")
        return [f"{name}: {one}" for name in findings for one in getattr(self, name)]


def check_outbox(history: History, found: Collection[str]) -> OutboxVerdict:
    """`history` has an intent for each item, with its transaction as the call; `found` are the items whose
    state is there in the end.
    """
    transactions: dict[str, list[str]] = defaultdict(list)
    for intent in history.intents:
        transactions[intent.call].append(intent.id)
    acknowledged = {one.call for one in history.outcomes if one.acknowledged}
    items = {one.id for one in history.intents}
    received = {one.id for one in history.receipts}
    taken = {one.id for one in history.receipts if one.answer == SUCCESS}
    state = set(found)
    committed = {name for name, ids in transactions.items() if state.issuperset(ids)}
    begun = {name for name, ids in transactions.items() if not state.isdisjoint(ids)}
    return OutboxVerdict(
        transactions=len(transactions),
        acknowledged=len(acknowledged),
        committed=len(committed),
        late=len(committed - acknowledged),
        unknown=len(transactions.keys() - committed - acknowledged),
        saved=len(state),
        received=len(received),
        duplicates=check(history).duplicates,
        undone=_sorted(acknowledged - begun),
        torn=_sorted(begun - committed),
        silent=_sorted(state - taken),
        phantom=_sorted((received & items) - state),
        invented=_sorted(received - items),
    )


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
