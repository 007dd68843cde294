"""The secret store: from meshnode's calls to the system's, and from its errors to meshnode's.

Values appear in no log line and in no error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import SecretFeature

from meshnode_secretstores_mine._system import Server

__all__ = ["Secrets"]


@final
class Secrets:
    """A `SecretStore`.

    A name is passed on as it is. A system that would take two spellings for one secret (by case, by a path
    with `..`) needs a check here: the node's scopes compare names as they are.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def features(self) -> frozenset[SecretFeature]:
        """Without the feature a secret has one value, whose key is the secret's name."""
        return frozenset({SecretFeature.MULTIPLE_KEY_VALUES_PER_SECRET})

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        with _translated():
            values = await self._server.read(name)
        if values is None:
            raise KeyError(name)
        return values

    async def bulk_get(self, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        found = {}
        with _translated():
            for name in await self._server.names():
                values = await self._server.read(name)
                if values is not None:  # it may have gone meanwhile
                    found[name] = values
        return found

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
