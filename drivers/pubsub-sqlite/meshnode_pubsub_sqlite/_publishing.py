"""Groups, and what is published into them. Functions that take a connection last; they block and run in the
worker thread, inside its transaction, so that a publication and a first subscription never see half of each
other. Times are seconds since 1970.

A topic to which nobody has subscribed yet has one group without a name, which holds what is published for
whoever comes first: its first subscription gives the group a name and goes on with what is in it. So a topic
has either groups with names or the one without, or none.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import final

from attrs import frozen
from meshnode_sqlite_client import whole

from meshnode.errors import PubSubError, Status
from meshnode.interfaces import PublishRequest
from meshnode_pubsub_sqlite._rows import remove

__all__ = ["Bounds", "Published", "join", "publish", "publish_all"]

_PARTITION_KEY = "partitionKey"
_SLICE = 500


@final
@frozen
class Bounds:
    """`most` messages may wait in a group. `keep_unclaimed`: also where nobody has subscribed yet."""

    most: int
    keep_unclaimed: bool


@final
@frozen
class Published:
    """What came of several requests: errors by their positions, and how many older messages had to go
    because nobody had subscribed and there was room for no more.
    """

    failures: dict[int, Exception]
    dropped: int


def join(topic: str, name: str, connection: sqlite3.Connection) -> int:
    """The group's number; it exists from now on. The first of a topic takes what was kept for it."""
    adopt = "UPDATE pubsub_groups SET name = ? WHERE topic = ? AND name IS NULL"
    if not connection.execute(adopt, (name, topic)).rowcount:
        connection.execute("INSERT OR IGNORE INTO pubsub_groups (topic, name) VALUES (?, ?)", (topic, name))
    row = connection.execute("SELECT id FROM pubsub_groups WHERE topic = ? AND name = ?", (topic, name))
    return int(row.fetchone()[0])


def publish(request: PublishRequest, now: float, bounds: Bounds, connection: sqlite3.Connection) -> int:
    """Into every group of the topic or none; how many older messages had to go for it. Raises
    RESOURCE_EXHAUSTED where a group is full.
    """
    topic = request.topic
    groups = connection.execute(
        "SELECT id, name, size FROM pubsub_groups WHERE topic = ?", (topic,)
    ).fetchall()
    if not bounds.keep_unclaimed and all(name is None for _, name, _ in groups):
        return 0
    for _, name, size in groups:
        if size >= bounds.most and name is not None:
            raise PubSubError(
                f"consumer group {name} has {size} messages of topic {topic} waiting",
                status=Status.RESOURCE_EXHAUSTED,
            )
    with whole(connection):
        numbers = [group for group, _, _ in groups] or [_hold(topic, connection)]
        dropped = 0
        for group, name, size in groups:
            if name is None and size >= bounds.most:
                dropped += _drop_oldest(group, size - bounds.most + 1, now, connection)
        _insert(request, now, numbers, connection)
    return dropped


def _hold(topic: str, connection: sqlite3.Connection) -> int | None:
    """A group without a name, for who comes first."""
    return connection.execute("INSERT INTO pubsub_groups (topic) VALUES (?)", (topic,)).lastrowid


def _drop_oldest(group: int, surplus: int, now: float, connection: sqlite3.Connection) -> int:
    """(Much is only where others allowed more; then it takes several publications.)"""
    oldest = connection.execute(
        "SELECT message_id, partition_key FROM pubsub_deliveries WHERE group_id = ? "
        "ORDER BY message_id LIMIT ?",
        (group, min(surplus, _SLICE)),
    ).fetchall()
    for message, key in oldest:
        remove(group, message, key, now, False, connection)
    return len(oldest)


def _insert(
    request: PublishRequest, now: float, groups: Sequence[int | None], connection: sqlite3.Connection
) -> None:
    message = connection.execute(
        "INSERT INTO pubsub_messages (topic, data, content_type, metadata, published, expires, pending) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            request.topic,
            request.data,
            request.content_type,
            json.dumps(dict(request.metadata)) if request.metadata else "",
            now,
            None if request.ttl is None else now + request.ttl,
            len(groups),
        ),
    ).lastrowid
    key = request.metadata.get(_PARTITION_KEY, "")
    for group in groups:
        _add(group, message, key, connection)
    connection.execute("UPDATE pubsub_groups SET size = size + 1 WHERE topic = ?", (request.topic,))


def _add(group: int | None, message: int | None, key: str, connection: sqlite3.Connection) -> None:
    if key:
        connection.execute(
            "INSERT INTO pubsub_deliveries (group_id, message_id, partition_key, held) VALUES (?1, ?2, ?3, "
            "EXISTS (SELECT 1 FROM pubsub_deliveries WHERE group_id = ?1 AND partition_key = ?3 "
            "AND partition_key <> ''))",
            (group, message, key),
        )
    else:
        connection.execute(
            "INSERT INTO pubsub_deliveries (group_id, message_id, partition_key, held) VALUES (?, ?, '', 0)",
            (group, message),
        )


def publish_all(
    requests: Sequence[PublishRequest], now: float, bounds: Bounds, connection: sqlite3.Connection
) -> Published:
    failures: dict[int, Exception] = {}
    dropped = 0
    for position, request in enumerate(requests):
        try:
            dropped += publish(request, now, bounds, connection)
        except PubSubError as error:
            failures[position] = error
    return Published(failures, dropped)
