"""`state.mysql`: state in a table on MySQL or MariaDB, in the layout of Dapr's component of that name.

Imports meshnode.interfaces and meshnode.errors only. PyMySQL does the talking, in threads: it is the
best kept of MySQL's clients in Python (aiomysql is a layer over it), and a job that a thread sees to its end
leaves no half-read answer behind when its caller is cancelled. So there is no other event loop.

    _options.py      the metadata fields
    _dsn.py          a connection string taken apart
    _tls.py          the certificates it speaks of
    _errors.py       what goes wrong, in the node's words
    _connection.py   one connection and its thread
    _pool.py         some of them
    _schema.py       the database and its tables
    _rows.py         one operation on the tables, as functions that run in a thread
    _store.py        the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import evolve

from meshnode.interfaces import Driver, DriverContext
from meshnode_state_mysql._connection import Login
from meshnode_state_mysql._dsn import parse_dsn
from meshnode_state_mysql._options import Options
from meshnode_state_mysql._pool import Pool
from meshnode_state_mysql._schema import prepare
from meshnode_state_mysql._store import MysqlStore
from meshnode_state_mysql._tls import tls_context

__all__ = ["MysqlStore", "Options", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[MysqlStore]:
    login = Login(parse_dsn(options.connection_string), tls_context(options))
    if (options.pem_path or options.pem_contents) and login.dsn.tls != "custom":
        context.log.warning(
            "%s: pemPath has no effect without tls=custom in connectionString", context.component
        )
    exact = await _prepared(login, options)
    if not exact:
        context.log.warning(
            "%s: table %s was not made by meshnode: keys that differ in case only are one and the same there",
            context.component,
            options.table_name,
        )
    pool = Pool(evolve(login, database=options.schema_name), options.timeout)
    try:
        async with trio.open_nursery() as nursery:
            store = MysqlStore(options, context, pool, exact=exact)
            if options.sweep_seconds is not None:
                nursery.start_soon(store.sweep, options.sweep_seconds)
            yield store
            nursery.cancel_scope.cancel()
    finally:
        pool.close()


async def _prepared(login: Login, options: Options) -> bool:
    """Over a connection that names no database: there may be none yet."""
    pool = Pool(login, options.timeout)
    try:
        return await pool.run(partial(prepare, options))
    finally:
        pool.close()


driver: Driver[MysqlStore] = Driver(
    type="state.mysql",
    metadata=Options,
    open=_open,
    summary="State in a table on MySQL or MariaDB.",
)
