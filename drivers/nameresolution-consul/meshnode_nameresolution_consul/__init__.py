"""`nameresolution.consul`: services registered with HashiCorp Consul, as Dapr's resolver of that name has
them. Imports meshnode.interfaces and meshnode.errors only.

    _shapes.py        fields of settings within settings; no I/O
    _options.py       the settings
    _settings.py      where the agent is; reads files
    _registration.py  what is registered, and the addresses in what is found; no I/O
    _agent.py         the agent's HTTP API
    _watches.py       answers that are kept up to date
    _resolver.py      the resolver
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import trio

from meshnode.interfaces import Driver, DriverContext, lone_error
from meshnode_nameresolution_consul._agent import Agent
from meshnode_nameresolution_consul._options import ConsulOptions
from meshnode_nameresolution_consul._resolver import ConsulResolver
from meshnode_nameresolution_consul._settings import Settings, settings
from meshnode_nameresolution_consul._watches import open_watches

__all__ = ["ConsulOptions", "ConsulResolver", "driver"]

_CONNECTING = 5.0
"""Seconds for a connection and its TLS; how long an answer may take is the caller's to say."""


@asynccontextmanager
async def _open(options: ConsulOptions, context: DriverContext) -> AsyncIterator[ConsulResolver]:
    """Where the node does not register itself the agent is asked whether it is there, as in Dapr."""
    found = await trio.to_thread.run_sync(settings, options.client, context.env)
    client = _client(found)
    if found.tls is not None and not found.tls.check_hostname:
        context.log.warning("insecureSkipVerify is set, so anybody can pose as Consul")
    agent = Agent(found, client, options.query_options)
    try:
        if not options.registers:
            await agent.check()
        with lone_error():
            async with AsyncExitStack() as stack:
                kept = options.use_cache
                watches = await stack.enter_async_context(open_watches(agent, context.log)) if kept else None
                yield ConsulResolver(options, context, agent, watches)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await client.aclose()


def _client(found: Settings) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    transport = httpx.AsyncHTTPTransport(
        verify=found.tls or True, limits=limits, uds=found.socket or None, trust_env=False
    )
    return httpx.AsyncClient(
        base_url=found.url,
        headers={"X-Consul-Token": found.token} if found.token else {},
        auth=found.login,
        transport=transport,
        timeout=httpx.Timeout(None, connect=_CONNECTING),
        trust_env=False,
    )


driver: Driver[ConsulResolver] = Driver(
    type="nameresolution.consul",
    metadata=ConsulOptions,
    open=_open,
    summary="Services registered with HashiCorp Consul.",
)
