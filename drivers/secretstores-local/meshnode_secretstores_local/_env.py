"""secretstores.local.env: the node's environment variables as secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import final

import trio
from attrs import frozen

from meshnode.interfaces import Driver, DriverContext, SecretFeature, SecretStore, option

__all__ = ["EnvOptions", "EnvSecrets", "env_driver"]


@frozen
class EnvOptions:
    prefix: str = option(
        "prefix", "Only variables that begin with this, which is left out of the secrets' names.", default=""
    )


@final
class EnvSecrets:
    """Fulfils `SecretStore`; a secret has one value, under its own name. Each call reads the environment."""

    features: frozenset[SecretFeature] = frozenset()

    def __init__(self, prefix: str, environment: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._environment = environment

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        await trio.lowlevel.checkpoint()
        variable = self._prefix + name
        if not name or not _allowed(variable):
            raise KeyError(name)
        return {name: self._environment[variable]}

    async def bulk_get(self, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        await trio.lowlevel.checkpoint()
        names = (name for name in self._environment if name.startswith(self._prefix) and _allowed(name))
        start = len(self._prefix)
        return {name[start:]: {name[start:]: self._environment[name]} for name in names if len(name) > start}


def _allowed(variable: str) -> bool:
    """The node's own tokens and settings are not the application's secrets."""
    folded = variable.upper()
    return folded != "APP_API_TOKEN" and not folded.startswith("DAPR_")


@asynccontextmanager
async def _open(options: EnvOptions, context: DriverContext) -> AsyncIterator[SecretStore]:
    yield EnvSecrets(options.prefix, context.env)


env_driver: Driver[SecretStore] = Driver(
    type="secretstores.local.env",
    metadata=EnvOptions,
    open=_open,
    summary="Environment variables of the node, for development.",
)
