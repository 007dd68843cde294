"""The resolver: each call is one command, and a task renews the own registration."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from meshnode.errors import ComponentError
from meshnode.interfaces import DriverContext, Instance, lone_error
from meshnode_redis._client import Client
from meshnode_redis.nameresolution import _scripts
from meshnode_redis.nameresolution._options import Options

__all__ = ["RedisResolver"]

_RETRY: Final = 0.5
"""Seconds until a renewal that failed is tried again."""
_FAREWELL: Final = 2.0
"""Seconds that taking the registration out may take; after that it ends by itself."""
_MAX_AGE: Final = 1.0


@final
class RedisResolver:
    """Fulfils `NameResolver`. Nothing sent here does harm when it happens twice, so all of it is repeated."""

    def __init__(self, options: Options, context: DriverContext, client: Client) -> None:
        self._lifetime: Final = options.lifetime
        self._context = context
        self._client = client

    @property
    def max_age(self) -> float:
        return min(_MAX_AGE, self._lifetime / 2)

    async def resolve(self, app_id: str, namespace: str) -> tuple[str, ...]:
        key = _scripts.key_of(app_id, namespace)
        members = await self._client.call(key, _scripts.lookup(key), repeatable=True)
        return tuple(sorted({_scripts.address_of(member) for member in members} - {""}))

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        registration = uuid.UUID(int=self._context.rng.getrandbits(128), version=4)
        key = _scripts.key_of(instance.app_id, instance.namespace)
        member = _scripts.member_of(instance.address, registration.hex)
        try:
            await self._register(key, member)
            with lone_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_registered, key, member)
                    yield
                    nursery.cancel_scope.cancel()
        finally:
            await self._unregister(key, member)

    async def _register(self, key: str, member: str) -> None:
        arguments = _scripts.register(key, member, round(self._lifetime * 1000))
        await self._client.call(key, arguments, repeatable=True)

    async def _keep_registered(self, key: str, member: str) -> None:
        period = self._lifetime / 3
        away = False
        while True:
            await trio.sleep(min(_RETRY, period) if away else period)
            try:
                await self._register(key, member)
            except ComponentError as error:
                if not away:
                    self._context.log.warning("the registration could not be renewed: %s", error)
                away = True
            else:
                if away:
                    self._context.log.info("the registration is renewed again")
                away = False

    async def _unregister(self, key: str, member: str) -> None:
        """A renewal under way goes before it on the same connection, so it is the last word."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL) as scope:
            try:
                await self._client.call(key, _scripts.unregister(key, member), repeatable=True)
            except ComponentError as error:
                self._context.log.warning("the registration could not be taken out: %s", error)
        if scope.cancelled_caught:
            self._context.log.warning("the registration could not be taken out in %g s", _FAREWELL)
