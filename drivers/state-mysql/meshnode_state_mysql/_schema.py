"""The database and its tables, made where they are not there: Dapr's, so that either finds the other's.

Ours differ in what a daprd does not see: the key's column tells upper from lower case, which Dapr's does not
by the server's usual rules, and takes more than 255 characters. Everything here blocks.
"""

from __future__ import annotations

from pymysql.err import MySQLError

from meshnode_state_mysql._connection import Session
from meshnode_state_mysql._errors import code_of
from meshnode_state_mysql._options import Options

__all__ = ["prepare"]

_KEY_LENGTH = 768
"""Characters: as many as an index takes."""
_EXACT = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")
"""Rules that compare byte by byte: MariaDB's and MySQL's."""
_NEARLY = "utf8mb4_bin"
"""Older servers': it takes no notice of spaces at the end."""
_THERE_ALREADY = frozenset({1060, 1061})


def prepare(options: Options, session: Session) -> bool:
    """True if keys that differ are different rows: in a table that a daprd made, they need not be."""
    schema = options.schema_name
    if not _count(session, "schemata", "schema_name = %s", schema):
        session.execute(f"CREATE DATABASE IF NOT EXISTS {schema}")
    session.execute(f"USE {schema}")
    if not _has_table(session, schema, options.table_name):
        _make_table(session, options.table_name)
    _add_expiry(session, schema, options.table_name)
    if not _has_table(session, schema, options.metadata_table_name):
        session.execute(
            f"CREATE TABLE IF NOT EXISTS {options.metadata_table_name} "
            "(id VARCHAR(255) NOT NULL PRIMARY KEY, value TEXT NOT NULL)"
        )
    (rule,) = session.rows(
        "SELECT collation_name FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s AND column_name = 'id'",
        schema,
        options.table_name,
    )
    return rule[0] is None or rule[0] in _EXACT


def _count(session: Session, table: str, condition: str, *arguments: str) -> int:
    sql = f"SELECT count(*) FROM information_schema.{table} WHERE {condition}"
    return int(session.rows(sql, *arguments)[0][0])


def _has_table(session: Session, schema: str, table: str) -> bool:
    return bool(_count(session, "tables", "table_schema = %s AND table_name = %s", schema, table))


def _make_table(session: Session, table: str) -> None:
    known = session.rows(
        "SELECT collation_name FROM information_schema.collations WHERE collation_name IN (%s, %s)", *_EXACT
    )
    rule = str(known[0][0]) if known else _NEARLY
    session.execute(
        f"""CREATE TABLE IF NOT EXISTS {table} (
            id VARCHAR({_KEY_LENGTH}) CHARACTER SET utf8mb4 COLLATE {rule} NOT NULL PRIMARY KEY,
            value JSON NOT NULL,
            isbinary BOOLEAN NOT NULL,
            insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
            updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
            eTag VARCHAR(36) NOT NULL,
            expiredate TIMESTAMP NULL,
            INDEX expiredate_idx (expiredate)
        ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC"""
    )


def _add_expiry(session: Session, schema: str, table: str) -> None:
    """A Dapr before 1.11 had no such column."""
    condition = "table_schema = %s AND table_name = %s AND column_name = 'expiredate'"
    if _count(session, "columns", condition, schema, table):
        return
    for change in ("ADD COLUMN expiredate TIMESTAMP NULL", "ADD INDEX expiredate_idx (expiredate)"):
        try:
            session.execute(f"ALTER TABLE {table} {change}")
        except MySQLError as error:
            if code_of(error) not in _THERE_ALREADY:  # another node was quicker
                raise
