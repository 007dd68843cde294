"""`secretstores.hashicorp.vault`: the key-value engine, version 2, of a Vault server.

Imports meshnode.interfaces and meshnode.errors only.

    _options.py    the metadata fields
    _tls.py        certificates; reads files
    _paths.py      where a secret lies; no I/O
    _store.py      the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import trio

from meshnode.errors import ComponentError
from meshnode.interfaces import Driver, DriverContext, SecretStore
from meshnode_secretstores_vault._options import Options
from meshnode_secretstores_vault._store import VaultSecrets
from meshnode_secretstores_vault._tls import tls_context

__all__ = ["Options", "VaultSecrets", "driver"]

_CONNECTING = 15.0
"""Seconds for a connection and its TLS; how long an answer may take is the caller's to say."""


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[SecretStore]:
    if options.skip_verify:
        context.log.warning("%s: skipVerify is set, so anybody can pose as Vault", context.component)
    tls = await trio.to_thread.run_sync(tls_context, options)
    headers = {"X-Vault-Token": await _token(options), "X-Vault-Request": "true"}
    if options.namespace:
        headers["X-Vault-Namespace"] = options.namespace
    client = httpx.AsyncClient(
        headers=headers, verify=tls, timeout=httpx.Timeout(None, connect=_CONNECTING), trust_env=False
    )
    try:
        yield VaultSecrets(options, client)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await client.aclose()


async def _token(options: Options) -> str:
    """Never part of an error, and so looked at before it gets into a header."""
    if options.token:
        token = options.token.strip()
    else:
        path = trio.Path(options.token_mount_path)
        try:
            token = (await path.read_text(encoding="utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ComponentError(f"the token file {path} cannot be read: {reason}") from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ComponentError("the Vault token is empty or holds characters that no token has")
    return token


driver: Driver[SecretStore] = Driver(
    type="secretstores.hashicorp.vault",
    metadata=Options,
    open=_open,
    summary="HashiCorp Vault, key-value engine version 2.",
)
