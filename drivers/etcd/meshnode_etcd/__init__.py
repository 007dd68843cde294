"""Component types on etcd: `state.etcd`, `lock.etcd`, `configuration.etcd`.

Imports meshnode.interfaces and meshnode.errors only. etcd's API is gRPC; grpclib speaks asyncio: what talks
to a server runs behind the node's one trio-asyncio loop.

    wire/          generated from proto/ by generate.py; nobody edits it
    _options.py    the metadata fields of the connection
    _link.py       one connection to one member (asyncio)
    _login.py      the token that user and password are exchanged for (asyncio)
    _members.py    calls that go on to the next member when one fails (asyncio)
    _client.py     the same on trio's side, errors in the node's words
    _keys.py       keys below the prefix
    _open.py       opening a component
    state/         the state store
    lock/          the lock store
    configuration/ the configuration store

Each type is a package with a `driver` of its own and imports none of the others: a node loads what its
components need.
"""
