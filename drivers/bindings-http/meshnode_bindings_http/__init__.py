"""`bindings.http`: requests to an HTTP endpoint, as Dapr's component of that name makes them.

Imports meshnode.interfaces and meshnode.errors only. httpx's transport is used without its client, which
would keep cookies and bring headers of its own.

    _options.py    the metadata fields
    _tls.py        certificates; reads files
    _request.py    which request an invocation is, and which one follows a redirect; no I/O
    _response.py   the answer's body and metadata
    _binding.py    the binding
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import trio

from meshnode.interfaces import Driver, DriverContext
from meshnode_bindings_http._binding import HttpBinding
from meshnode_bindings_http._options import Options
from meshnode_bindings_http._tls import tls_context

__all__ = ["HttpBinding", "Options", "driver"]

_IDLE_CONNECTIONS = 100
_IDLE_SECONDS = 90.0


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[HttpBinding]:
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=_IDLE_CONNECTIONS,
        keepalive_expiry=_IDLE_SECONDS,
    )
    tls = await trio.to_thread.run_sync(tls_context, options)
    transport = httpx.AsyncHTTPTransport(verify=tls, limits=limits)
    try:
        yield HttpBinding(options, context, transport)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await transport.aclose()


driver: Driver[HttpBinding] = Driver(
    type="bindings.http",
    metadata=Options,
    open=_open,
    summary="Requests to an HTTP endpoint.",
)
