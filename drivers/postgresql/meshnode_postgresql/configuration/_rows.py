"""Reading the table."""

from __future__ import annotations

from collections.abc import Sequence

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import ConfigurationItem, DriverContext
from meshnode_postgresql._connection import Connection
from meshnode_postgresql._pool import Pool
from meshnode_postgresql._text import array
from meshnode_postgresql.configuration._items import item, latest

__all__ = ["check_table", "read"]


async def check_table(pool: Pool, table: str, context: DriverContext) -> None:
    """Raises `ConfigError` where there is none."""
    sql = (
        f"SELECT to_regclass('{table}') IS NULL, EXISTS "
        f"(SELECT FROM pg_trigger WHERE tgrelid = to_regclass('{table}') AND NOT tgisinternal)"
    )
    async with pool.session() as connection:
        result = await connection.run(sql)
    if result.get_value(0, 0) == b"t":
        remedy = "make it, with the columns key, value, version and metadata, and a trigger that notifies"
        raise ConfigError([Problem(f"there is no table {table}", field="table", remedy=remedy)])
    if result.get_value(0, 1) != b"t":
        context.log.warning("%s: no trigger of %s tells of changes", context.component, table)


async def read(connection: Connection, table: str, keys: Sequence[str]) -> dict[str, ConfigurationItem]:
    """The items of these keys, or of all."""
    sql = f"SELECT key, value::text, version::text, metadata::text FROM {table}"
    if keys:
        result = await connection.run(sql + " WHERE key = ANY($1::text[])", [array(keys)])
    else:
        result = await connection.run(sql)
    rows = []
    for number in range(result.ntuples):
        key, *texts = [(result.get_value(number, column) or b"").decode() for column in range(4)]
        rows.append((key, item(key, *texts)))
    return latest(rows)
