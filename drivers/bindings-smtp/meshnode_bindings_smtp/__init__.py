"""`bindings.smtp`: mail, as Dapr's component of that name sends it.

Imports meshnode.interfaces and meshnode.errors only.

    _options.py   the metadata fields
    _mail.py      a request as a message; no I/O
    _send.py      one message to the server (asyncio)
    _binding.py   the binding (trio)

The client library speaks asyncio, so that a cancelled call ends at once and takes its connection along.
`smtplib` in a thread would go on until its socket gives up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from meshnode.interfaces import Driver, DriverContext
from meshnode_bindings_smtp._binding import Smtp
from meshnode_bindings_smtp._options import Options
from meshnode_bindings_smtp._send import tls_context

__all__ = ["Options", "Smtp", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Smtp]:
    if options.skip_tls_verify:
        context.log.warning("%s: skipTLSVerify is on: anybody may answer as the server", context.component)
    tls = await trio.to_thread.run_sync(tls_context, options)
    yield Smtp(options, context, tls)


driver: Driver[Smtp] = Driver(
    type="bindings.smtp",
    metadata=Options,
    open=_open,
    summary="Mail by SMTP.",
    needs_asyncio=True,
)
