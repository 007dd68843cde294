"""Removing what is over. Functions that take a connection last; they block and run in the worker thread,
inside its transaction. Times are seconds since 1970.
"""

from __future__ import annotations

import sqlite3
from typing import final

from attrs import frozen

from meshnode_pubsub_sqlite._rows import remove

__all__ = ["Limits", "Swept", "something_to_sweep", "sweep"]

_SLICE = 500
_UNCLAIMED = (
    "FROM pubsub_groups AS g LEFT JOIN pubsub_messages AS m ON m.id = "
    "(SELECT min(message_id) FROM pubsub_deliveries WHERE group_id = g.id) WHERE g.name IS NULL"
)
"""The topics to which nobody has subscribed, each with its oldest message: as many rows as topics."""


@final
@frozen
class Limits:
    """What goes at `now`: what has expired, what every group was done with before `finished`, what was
    published before `unclaimed` where nobody has subscribed. `keep`: what has expired is finished first.
    """

    now: float
    finished: float
    unclaimed: float
    keep: bool


@final
@frozen
class Swept:
    """There may be `more`; `unclaimed` messages went that nobody had subscribed to."""

    more: bool
    unclaimed: int = 0


def something_to_sweep(limits: Limits, connection: sqlite3.Connection) -> bool:
    query = (
        "SELECT EXISTS (SELECT 1 FROM pubsub_messages WHERE expires <= ?) "
        "OR EXISTS (SELECT 1 FROM pubsub_messages WHERE pending = 0 AND finished <= ?) "
        f"OR EXISTS (SELECT 1 {_UNCLAIMED} AND (g.size = 0 OR m.published <= ?))"
    )
    found = connection.execute(query, (limits.now, limits.finished, limits.unclaimed))
    return bool(found.fetchone()[0])


def sweep(limits: Limits, connection: sqlite3.Connection) -> Swept:
    """Removes a slice of each."""
    if not connection.in_transaction:
        return Swept(more=False)
    expired = _expired(limits, connection)
    unclaimed = _unclaimed(limits, connection)
    finished = connection.execute(
        "DELETE FROM pubsub_messages WHERE id IN "
        "(SELECT id FROM pubsub_messages WHERE pending = 0 AND finished <= ? LIMIT ?)",
        (limits.finished, _SLICE),
    ).rowcount
    # So that topics which are only ever used once leave nothing.
    connection.execute("DELETE FROM pubsub_groups WHERE name IS NULL AND size = 0")
    return Swept(_SLICE in (expired, unclaimed, finished), unclaimed)


def _expired(limits: Limits, connection: sqlite3.Connection) -> int:
    found = connection.execute(
        "SELECT d.group_id, d.message_id, d.partition_key FROM pubsub_messages AS m "
        "JOIN pubsub_groups AS g ON g.topic = m.topic "
        "JOIN pubsub_deliveries AS d ON d.group_id = g.id AND d.message_id = m.id "
        "WHERE m.expires <= ? AND d.owner IS NULL LIMIT ?",
        (limits.now, _SLICE),
    ).fetchall()
    for group, message, key in found:
        remove(group, message, key, limits.now, limits.keep, connection)
    return len(found)


def _unclaimed(limits: Limits, connection: sqlite3.Connection) -> int:
    """In the order of publication, from each topic whose oldest message is old enough."""
    removed = 0
    groups = connection.execute(
        f"SELECT g.id {_UNCLAIMED} AND m.published <= ? LIMIT ?", (limits.unclaimed, _SLICE)
    ).fetchall()
    for (group,) in groups:
        oldest = connection.execute(
            "SELECT d.message_id, d.partition_key, m.published FROM pubsub_deliveries AS d "
            "JOIN pubsub_messages AS m ON m.id = d.message_id WHERE d.group_id = ? "
            "ORDER BY d.message_id LIMIT ?",
            (group, _SLICE - removed),
        ).fetchall()
        for message, key, published in oldest:
            if published > limits.unclaimed:
                break
            remove(group, message, key, limits.now, False, connection)
            removed += 1
    return removed
