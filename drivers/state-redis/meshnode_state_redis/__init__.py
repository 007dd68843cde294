"""`state.redis`: state in Redis, in the layout of Dapr's component of that name.

Imports meshnode.interfaces and meshnode.errors only. redis-py speaks asyncio: what talks to it runs
behind the node's one trio-asyncio loop, and trio's side only puts commands into lanes and sleeps.

    _options.py    the metadata fields
    _scripts.py    what is sent and what the answers mean; no I/O
    _command.py    a command and the trio task that waits for it: the bridge between the two sides
    _lane.py       one pipelined connection to one server (asyncio)
    _topology.py   which server a key belongs to: single, sentinel, cluster (asyncio)
    _store.py      the store (trio)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio

from meshnode.interfaces import Driver, DriverContext
from meshnode_state_redis._command import TROUBLE, on_asyncio
from meshnode_state_redis._options import Options
from meshnode_state_redis._store import RedisStore, unavailable
from meshnode_state_redis._topology import make_topology

__all__ = ["Options", "RedisStore", "driver"]


@contextmanager
def _certificates(options: Options) -> Iterator[dict[str, Any]]:
    """redis-py's TLS arguments.

    The client certificate has to be in files for as long as connections may be opened.
    """
    if not options.enable_tls:
        yield {}
        return
    arguments: dict[str, Any] = {"ssl_ca_data": options.ca_cert or None}
    if options.insecure_skip_tls_verify:
        arguments |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    if not options.client_cert:
        yield arguments
        return
    with TemporaryDirectory(prefix="meshnode-redis-") as folder:
        for name, text in (("certfile", options.client_cert), ("keyfile", options.client_key)):
            path = Path(folder, name)
            path.touch(mode=0o600)
            path.write_text(text)
            arguments[f"ssl_{name}"] = str(path)
        yield arguments


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[RedisStore]:
    if options.query_indexes:
        context.log.warning("%s: queryIndexes has no effect, for queries are not offered", context.component)
    with _certificates(options) as certificates:
        topology = make_topology(options, certificates, context.rng)
        try:
            try:
                await on_asyncio(topology.connect)
            except TROUBLE as error:
                raise unavailable(options, error) from error
            async with trio.open_nursery() as nursery:
                nursery.start_soon(on_asyncio, topology.serve)
                yield RedisStore(options, topology)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await on_asyncio(topology.aclose)


driver: Driver[RedisStore] = Driver(
    type="state.redis",
    metadata=Options,
    open=_open,
    summary="State in Redis: single, sentinel or cluster.",
    needs_asyncio=True,
)
