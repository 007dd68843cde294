"""The binding."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import final

from psycopg.pq.abc import PGresult

from meshnode.errors import BindingError, InvalidArgument
from meshnode.interfaces import BindingRequest, BindingResult, DriverContext
from meshnode_postgresql._connection import Connection
from meshnode_postgresql._gotime import format_duration, format_time
from meshnode_postgresql._pool import Pool
from meshnode_postgresql.bindings._params import Params, parse_params
from meshnode_postgresql.bindings._values import rows_json

__all__ = ["Postgres"]


@final
class Postgres:
    """An `OutputBinding`."""

    def __init__(self, pool: Pool, context: DriverContext) -> None:
        self._pool = pool
        self._wall = context.wall

    @property
    def operations(self) -> Sequence[str]:
        return ("exec", "query", "close")

    async def invoke(self, request: BindingRequest) -> BindingResult:
        if request.operation == "close":
            self._pool.close()
            return BindingResult()
        if request.operation not in ("exec", "query"):
            raise InvalidArgument(f"invalid operation type: {request.operation}")
        if self._pool.closed:
            raise BindingError("component is closed")
        sql = request.metadata.get("sql", "")
        if not sql:
            raise InvalidArgument("required metadata not set: sql")
        if "\0" in sql:
            raise InvalidArgument("sql: PostgreSQL has no NUL character")
        params = parse_params(request.metadata.get("params", ""))
        started = self._wall()
        run = self._exec if request.operation == "exec" else self._query
        data, found = await run(sql, params)
        ended = self._wall()
        metadata = {
            "operation": request.operation,
            "sql": sql,
            "start-time": format_time(datetime.fromtimestamp(started, UTC)),
            "end-time": format_time(datetime.fromtimestamp(ended, UTC)),
            "duration": format_duration(ended - started),
        }
        return BindingResult(data, metadata | found)

    async def _exec(self, sql: str, params: Params) -> tuple[bytes, dict[str, str]]:
        """Without parameters it may be several statements."""
        async with self._pool.connection() as connection:
            result = await (_extended(connection, sql, params) if params else connection.simple(sql))
            count = result.command_tuples if result is not None else None
        return b"", {"rows-affected": str(count or 0)}

    async def _query(self, sql: str, params: Params) -> tuple[bytes, dict[str, str]]:
        async with self._pool.connection() as connection:
            result = await _extended(connection, sql, params)
        return rows_json(result), {}


async def _extended(connection: Connection, sql: str, params: Params) -> PGresult:
    if not params.need_types:
        return await connection.run(sql, params.encoded())
    types = await connection.prepare(sql)
    return await connection.run_prepared(params.encoded(types))
