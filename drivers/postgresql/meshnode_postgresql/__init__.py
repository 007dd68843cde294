"""Component types on PostgreSQL: `state.postgresql`, `lock.postgresql`, `configuration.postgresql` and
`bindings.postgresql`.

Imports meshnode.interfaces and meshnode.errors only. libpq, as psycopg wraps it, does the talking without
blocking; trio waits for its socket. So there is no thread and no other event loop, and a cancelled call ends
its statement at the server.

    _options.py      the metadata fields of the connection
    _dsn.py          a connection string taken apart
    _gotime.py       times and durations as Go writes them
    _text.py         texts, arrays and names as they go to the server
    _connection.py   one connection
    _pool.py         some of them, errors in the node's words
    _open.py         opening a component
    bindings/        the binding
    state/           the state store
    lock/            the lock store
    configuration/   the configuration store

Each type is a package with a `driver` of its own and imports none of the others: a node loads what its
components need.
"""
