"""The name resolution: from meshnode's calls to the system's, and from its errors to meshnode's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import final

import trio
from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import DriverContext, Instance

from meshnode_nameresolution_mine._options import Options
from meshnode_nameresolution_mine._system import Server

__all__ = ["Resolver"]

_LEAVING_SECONDS = 2.0
"""What taking an entry out may take; an entry that stays behind points at nobody."""


@final
class Resolver:
    """A `NameResolver`."""

    def __init__(self, server: Server, options: Options, context: DriverContext) -> None:
        self._server = server
        self._max_age = options.max_age.total_seconds()
        self._log = context.log

    @property
    def max_age(self) -> float:
        return self._max_age

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        """A registry whose entries run out also needs a task that renews them, ended before the entry is
        taken out.
        """
        entry = (instance.app_id, instance.namespace, instance.address)
        try:
            with _translated():
                await self._server.register(*entry)
            yield
        finally:
            # Also where registering was cut off: then nobody knows whether it was done.
            await self._take_out(*entry)

    async def _take_out(self, app_id: str, namespace: str, address: str) -> None:
        with trio.move_on_after(_LEAVING_SECONDS, shield=True):
            try:
                await self._server.deregister(app_id, namespace, address)
            except OSError as error:
                self._log.warning("the entry of %s stays behind: %s", app_id, error)

    async def resolve(self, app_id: str, namespace: str) -> Sequence[str]:
        with _translated():
            return await self._server.find(app_id, namespace)

    async def ping(self) -> None:
        with _translated():
            await self._server.ping()


@contextmanager
def _translated() -> Iterator[None]:
    """What the system's library raises becomes one of meshnode's errors here."""
    try:
        yield
    except OSError as error:
        raise ComponentUnavailable(str(error)) from error
