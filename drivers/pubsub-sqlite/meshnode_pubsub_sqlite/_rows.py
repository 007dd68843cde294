"""One operation on the deliveries of a group, as functions that take a connection last. They block and run
in the worker thread, inside its transaction. Times are seconds since 1970.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, final

from attrs import frozen
from meshnode_sqlite_client import whole

from meshnode.interfaces import Message

__all__ = ["Lease", "Taken", "acknowledge", "may_take", "put_back", "release", "remove", "renew", "take"]

_MINE = "group_id = ? AND message_id = ? AND owner = ? AND attempts = ?"
# Held deliveries may be many; the index has only the others.
_FREE = "pubsub_deliveries AS d INDEXED BY pubsub_ready WHERE d.group_id = ? AND d.held = 0"


@final
@frozen
class Lease:
    """One delivery that is ours until somebody else takes it: then `attempt` has risen."""

    group: int
    message: int
    key: str
    owner: int
    attempt: int

    @property
    def row(self) -> tuple[int, int, int, int]:
        return self.group, self.message, self.owner, self.attempt


@final
@frozen
class Taken:
    """What was taken. Where it is nothing, `due` is when to look again if nothing happens before."""

    items: Sequence[tuple[Lease, Message]]
    due: float | None = None


def may_take(group: int, now: float, connection: sqlite3.Connection) -> bool:
    """Whether there is anything to take; costs no transaction."""
    query = f"SELECT 1 FROM {_FREE} AND d.due <= ? LIMIT 1"
    return connection.execute(query, (group, now)).fetchone() is not None


def take(
    group: int, owner: int, most: int, now: float, until: float, keep: bool, connection: sqlite3.Connection
) -> Taken:
    """Leases up to `most` deliveries until then, in order; removes what it finds expired."""
    items: list[tuple[Lease, Message]] = []
    found = connection.in_transaction
    while found and len(items) < most:
        found = False
        for row in _ready(connection, group, now, most - len(items)):
            message, key, attempts, expires, topic, data, content_type, metadata = row
            found = True
            if expires is not None and expires <= now:
                remove(group, message, key, now, keep, connection)
                continue
            lease = Lease(group, message, key, owner, attempts + 1)
            items.append((lease, Message(topic, data, content_type, _metadata(metadata), message)))
            connection.execute(
                "UPDATE pubsub_deliveries SET owner = ?, due = ?, attempts = ? "
                "WHERE group_id = ? AND message_id = ?",
                (owner, until, attempts + 1, group, message),
            )
    if items:
        return Taken(items)
    (due,) = connection.execute(f"SELECT min(d.due) FROM {_FREE}", (group,)).fetchone()
    return Taken((), due)


def _ready(connection: sqlite3.Connection, group: int, now: float, most: int) -> list[Any]:
    return connection.execute(
        "SELECT d.message_id, d.partition_key, d.attempts, m.expires, m.topic, m.data, m.content_type, "
        "m.metadata FROM (SELECT d.message_id, d.partition_key, d.attempts "
        f"FROM {_FREE} AND d.due <= ? ORDER BY d.message_id LIMIT ?) AS d "
        "JOIN pubsub_messages AS m ON m.id = d.message_id ORDER BY d.message_id",
        (group, now, most),
    ).fetchall()


def _metadata(text: str) -> Mapping[str, str]:
    read: dict[str, str] = json.loads(text) if text else {}
    return read


def acknowledge(lease: Lease, now: float, keep: bool, connection: sqlite3.Connection) -> bool:
    """The group is done with it; False when the lease was somebody else's by now."""
    row = connection.execute(f"SELECT 1 FROM pubsub_deliveries WHERE {_MINE}", lease.row).fetchone()
    if row is None:
        return False
    remove(lease.group, lease.message, lease.key, now, keep, connection)
    return True


def remove(
    group: int, message: int, key: str, now: float, keep: bool, connection: sqlite3.Connection
) -> None:
    """A group is done with a message: the next one of its key is free, and what no group needs may go."""
    with whole(connection):
        connection.execute(
            "DELETE FROM pubsub_deliveries WHERE group_id = ? AND message_id = ?", (group, message)
        )
        if key:
            connection.execute(
                "UPDATE pubsub_deliveries SET held = 0 WHERE group_id = ?1 AND message_id = (SELECT "
                "min(message_id) FROM pubsub_deliveries WHERE group_id = ?1 AND partition_key = ?2 "
                "AND partition_key <> '')",
                (group, key),
            )
        connection.execute("UPDATE pubsub_groups SET size = size - 1 WHERE id = ?", (group,))
        last = "DELETE FROM pubsub_messages WHERE id = ? AND pending = 1"
        if keep or not connection.execute(last, (message,)).rowcount:
            connection.execute(
                "UPDATE pubsub_messages SET pending = pending - 1, finished = ? WHERE id = ?", (now, message)
            )


def put_back(lease: Lease, due: float, connection: sqlite3.Connection) -> bool:
    """Nobody's again, to be taken from `due` on; False when the lease was somebody else's by now."""
    row = (due, *lease.row)
    update = f"UPDATE pubsub_deliveries SET owner = NULL, due = ? WHERE {_MINE}"
    return connection.execute(update, row).rowcount == 1


def renew(leases: Sequence[Lease], until: float, connection: sqlite3.Connection) -> None:
    update = f"UPDATE pubsub_deliveries SET due = ? WHERE {_MINE}"
    connection.executemany(update, [(until, *lease.row) for lease in leases])


def release(owner: int, connection: sqlite3.Connection) -> int:
    """Everything that owner holds is free; how many deliveries that were."""
    update = "UPDATE pubsub_deliveries SET owner = NULL, due = 0 WHERE owner = ?"
    return connection.execute(update, (owner,)).rowcount
