"""Making the tables, or bringing them up to date.

As Dapr does it, so that each finds the other's work done and neither works at the same time: the level is a
row of the metadata table, and so is what is locked meanwhile.
"""

from __future__ import annotations

from meshnode.errors import StateError
from meshnode_postgresql._connection import Connection, Refused
from meshnode_postgresql._pool import Pool
from meshnode_postgresql._text import encode
from meshnode_postgresql.state._layouts import Layout

__all__ = ["migrate"]

_UNDEFINED_TABLE = "42P01"
_UNIQUE_VIOLATION = "23505"
_ATTEMPTS = 3


async def migrate(pool: Pool, layout: Layout) -> None:
    """A user that may make no tables will do where they are there."""
    async with pool.session() as connection:
        if await _level(connection, layout) >= len(layout.migrations):
            return
        await _make_metadata_table(connection, layout)
        await connection.simple("BEGIN")
        await connection.run(f"SELECT value FROM {layout.metadata_table} WHERE key = 'lock' FOR UPDATE")
        for number in range(await _level(connection, layout), len(layout.migrations)):
            await connection.simple(layout.migrations[number])
        await connection.run(
            f"INSERT INTO {layout.metadata_table} AS m (key, value) VALUES ($1, $2) "
            "ON CONFLICT (key) DO UPDATE SET value = $2",
            [encode(layout.level_key), str(len(layout.migrations)).encode()],
        )
        await connection.simple("COMMIT")


async def _level(connection: Connection, layout: Layout) -> int:
    try:
        sql = f"SELECT value FROM {layout.metadata_table} WHERE key = $1"
        result = await connection.run(sql, [encode(layout.level_key)])
    except Refused as refused:
        if refused.code != _UNDEFINED_TABLE:
            raise
        return 0
    text = result.get_value(0, 0) if result.ntuples else b"0"
    if not text or not text.isdigit():
        raise StateError(f"{layout.metadata_table} has no number at {layout.level_key}")
    return int(text)


async def _make_metadata_table(connection: Connection, layout: Layout) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            await connection.simple(
                f"CREATE TABLE IF NOT EXISTS {layout.metadata_table} "
                "(key text NOT NULL PRIMARY KEY, value text NOT NULL)"
            )
            break
        except Refused as refused:  # of two that make it at once, one may stumble over its type's name
            if refused.code != _UNIQUE_VIOLATION or attempt + 1 == _ATTEMPTS:
                raise
    await connection.simple(
        f"INSERT INTO {layout.metadata_table} (key, value) VALUES ('lock', 'lock') "
        "ON CONFLICT (key) DO NOTHING"
    )
