"""The store: each request is one script, so that it happens as a whole or not at all."""

from __future__ import annotations

import re
from typing import final

from meshnode.errors import ConfigError, LockError, Problem
from meshnode.interfaces import UnlockOutcome
from meshnode_redis._client import Client
from meshnode_redis.lock import _scripts

__all__ = ["RedisLocks", "refuse_replicas"]


@final
class RedisLocks:
    """A `LockStore` on Redis. Nothing is sent twice: where an answer was lost, it may have been done."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def try_lock(self, resource: str, owner: str, seconds: int) -> int | None:
        token: int | None = await self._client.call(resource, _scripts.try_lock(resource, owner, seconds))
        return token

    async def unlock(self, resource: str, owner: str) -> UnlockOutcome:
        return UnlockOutcome(await self._client.call(resource, _scripts.unlock(resource, owner)))

    async def ping(self) -> None:
        await self._client.ping()


async def refuse_replicas(client: Client) -> None:
    """Raises `ConfigError` where the server has any, as Dapr does: one that takes over forgets locks."""
    try:
        reply = await client.call(_scripts.COUNTER, _scripts.REPLICATION, repeatable=True)
    except LockError:
        return  # a user that may not ask: nothing is known against the server
    if int(next(iter(re.findall(rb"connected_slaves:(\d+)", _raw(reply))), b"0")):
        raise ConfigError([Problem("the server has replicas, which may forget locks", field="redisHost")])


def _raw(reply: bytes | str) -> bytes:
    return reply if isinstance(reply, bytes) else reply.encode()
