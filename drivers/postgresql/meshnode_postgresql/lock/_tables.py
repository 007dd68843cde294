"""The table, and the functions that work on it. No I/O.

A row is a lock that was taken. Each request is one call of a function at the server, which is a transaction
of its own: a client that is frozen or dies between two statements would hold up everybody else.

Requests for one resource come one after another, by an advisory lock on its name. What a function reads
after it has waited for that is what its predecessor has left (each statement in it looks anew, as READ
COMMITTED has it), and the token is drawn while nobody else can draw one for this resource: so tokens of a
resource rise in the order of its locks. They come from a sequence, which no crash turns back; it begins at
the server's clock in microseconds, so that tokens go on rising where the tables were lost.
"""

from __future__ import annotations

from typing import final

__all__ = ["Tables"]

_PURGED = 10


@final
class Tables:
    """SQL for one table's name, which the options have checked."""

    def __init__(self, table: str) -> None:
        bare = table.rpartition(".")[2]
        self.missing = (
            f"SELECT to_regclass('{table}') IS NULL OR to_regprocedure('{table}_unlock(text,text)') IS NULL"
        )
        self.try_lock = f"SELECT {table}_try_lock($1, $2, $3)"
        self.unlock = f"SELECT {table}_unlock($1, $2)"
        self.now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        # One message, and so one transaction: nobody is held up by a client that stops in the middle.
        self._create = f"""
            SELECT pg_advisory_xact_lock(hashtextextended('{table}', 0));
            CREATE TABLE IF NOT EXISTS {table} (
                resource text NOT NULL PRIMARY KEY,
                owner text NOT NULL,
                token bigint NOT NULL,
                expires_at timestamptz NOT NULL
            );
            CREATE INDEX IF NOT EXISTS {bare}_expires_at ON {table} (expires_at);
            CREATE SEQUENCE IF NOT EXISTS {table}_tokens START WITH %s OWNED BY {table}.token;
            {_try_lock(table)};
            {_unlock(table)};
        """

    def create(self, token: int) -> str:
        """Makes what is not there; tokens begin with this one."""
        return self._create % token


def _one_at_a_time(table: str) -> str:
    """What is granted or released must be on the disk, whatever the database is set to."""
    return f"""
        PERFORM set_config('synchronous_commit', 'on', true)
            WHERE current_setting('synchronous_commit') = 'off';
        PERFORM pg_advisory_xact_lock(hashtextextended('{table}:' || $1, 0));
        moment := clock_timestamp();"""


def _try_lock(table: str) -> str:
    """The purge comes last and waits for nobody, so that two calls cannot wait for each other."""
    return f"""CREATE OR REPLACE FUNCTION {table}_try_lock(text, text, integer) RETURNS bigint AS $meshnode$
    DECLARE
        moment timestamptz;
        granted bigint;
    BEGIN {_one_at_a_time(table)}
        IF EXISTS (SELECT FROM {table} WHERE resource = $1 AND expires_at > moment) THEN
            RETURN NULL;
        END IF;
        INSERT INTO {table} AS held (resource, owner, token, expires_at)
            VALUES ($1, $2, nextval('{table}_tokens'), moment + make_interval(secs => $3))
            ON CONFLICT (resource) DO UPDATE SET
                owner = excluded.owner, token = excluded.token, expires_at = excluded.expires_at
                WHERE held.expires_at <= moment
            RETURNING token INTO granted;
        DELETE FROM {table} WHERE resource IN (
            SELECT resource FROM {table} WHERE expires_at <= moment LIMIT {_PURGED} FOR UPDATE SKIP LOCKED
        );
        RETURN granted;
    END $meshnode$ LANGUAGE plpgsql"""


def _unlock(table: str) -> str:
    """The answers are `UnlockOutcome`'s numbers."""
    return f"""CREATE OR REPLACE FUNCTION {table}_unlock(text, text) RETURNS integer AS $meshnode$
    DECLARE
        moment timestamptz;
        holder text;
    BEGIN {_one_at_a_time(table)}
        SELECT owner INTO holder FROM {table} WHERE resource = $1 AND expires_at > moment;
        IF holder IS NULL THEN
            RETURN 1;
        ELSIF holder <> $2 THEN
            RETURN 2;
        END IF;
        DELETE FROM {table} WHERE resource = $1;
        RETURN 0;
    END $meshnode$ LANGUAGE plpgsql"""
