"""`secretstores.kubernetes`: the Secrets of a Kubernetes cluster, by the HTTP API of its API server.

Imports meshnode.interfaces and meshnode.errors only.

    _names.py      what can be a name; no I/O
    _options.py    the metadata fields
    _cluster.py    which cluster, and who we are there; reads files
    _tls.py        certificates
    _token.py      the bearer token, which changes
    _store.py      the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import trio

from meshnode.interfaces import Driver, DriverContext, SecretStore
from meshnode_secretstores_kubernetes._cluster import find_cluster
from meshnode_secretstores_kubernetes._options import Options
from meshnode_secretstores_kubernetes._store import KubernetesSecrets
from meshnode_secretstores_kubernetes._tls import tls_context

__all__ = ["KubernetesSecrets", "Options", "driver"]

_CONNECTING = 15.0
"""Seconds for a connection and its TLS; how long an answer may take is the caller's to say."""


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[SecretStore]:
    cluster = await trio.to_thread.run_sync(find_cluster, options.kubeconfig_path, context.env)
    if cluster.skip_verify:
        name = context.component
        context.log.warning("%s: insecure-skip-tls-verify is set, so anybody can pose as Kubernetes", name)
    client = httpx.AsyncClient(
        base_url=cluster.server,
        auth=cluster.login,
        verify=await trio.to_thread.run_sync(tls_context, cluster),
        timeout=httpx.Timeout(None, connect=_CONNECTING),
        trust_env=False,
    )
    try:
        yield KubernetesSecrets(options, context, cluster, client)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await client.aclose()


driver: Driver[SecretStore] = Driver(
    type="secretstores.kubernetes",
    metadata=Options,
    open=_open,
    summary="Secrets of a Kubernetes cluster.",
)
