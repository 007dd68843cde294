"""Opening a component: certificates, the servers, and the lanes that run until it closes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio

from meshnode.errors import ComponentError
from meshnode.interfaces import DriverContext
from meshnode_redis._client import Client, unavailable
from meshnode_redis._command import TROUBLE, on_asyncio
from meshnode_redis._options import ConnectionOptions
from meshnode_redis._topology import Topology, make_topology

__all__ = ["open_client"]


@contextmanager
def _certificates(options: ConnectionOptions) -> Iterator[dict[str, Any]]:
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
async def open_client(
    options: ConnectionOptions, context: DriverContext, refusal: type[ComponentError]
) -> AsyncIterator[Client]:
    """Raises `ComponentUnavailable` when nothing answers."""
    with _certificates(options) as certificates:
        topology = make_topology(options, certificates, context.rng)
        try:
            try:
                await on_asyncio(topology.connect)
            except TROUBLE as error:
                raise unavailable(options, error) from error
            async with trio.open_nursery() as nursery:
                # Shielded: what is cancelled inside has still something to give back. It ends with the body.
                lanes = trio.CancelScope(shield=True)
                nursery.start_soon(_serve, topology, lanes)
                try:
                    yield Client(options, topology, refusal)
                finally:
                    lanes.cancel()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await on_asyncio(topology.aclose)


async def _serve(topology: Topology, scope: trio.CancelScope) -> None:
    with scope:
        await on_asyncio(topology.serve)
