"""Component types on Redis: `state.redis`, `pubsub.redis`, `bindings.redis`.

Imports meshnode.interfaces and meshnode.errors only. redis-py speaks asyncio: what talks to it runs
behind the node's one trio-asyncio loop, and trio's side only puts commands into lanes and sleeps.

    _options.py    the metadata fields of the connection
    _script.py     commands as they are sent, and Lua scripts; no I/O
    _command.py    a command and the trio task that waits for it: the bridge between the two sides
    _lane.py       one pipelined connection to one server (asyncio)
    _private.py    a lane for one user alone, whose commands may block
    _topology.py   which server a key belongs to: single, sentinel, cluster (asyncio)
    _client.py     the lane of a key, errors in the node's words (trio)
    _open.py       opening a component
    state/         the state store
    pubsub/        the broker
    bindings/      the binding
    configuration/ the configuration store
    nameresolution/ the name resolver

Each type is a package with a `driver` of its own and imports none of the others: a node loads what its
components need.
"""
