"""A secret store in another process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import final

from meshnode.errors import ComponentError
from meshnode.interfaces import DriverContext, SecretFeature
from meshnode.pluggable.client.connection import Connection, Session, kept
from meshnode.pluggable.client.errors import error_of, translated
from meshnode.pluggable.client.initialising import Properties, initialise
from meshnode.pluggable.names import SECRETS
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.components import v1 as components

__all__ = ["PluggableSecrets", "open_secrets"]

_KNOWN = {feature.value: feature for feature in SecretFeature}


@final
class PluggableSecrets:
    """A `SecretStore`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.features: frozenset[SecretFeature] = frozenset()

    async def begin(self, properties: Mapping[str, str], session: Session) -> None:
        types = (components.SecretStoreInitRequest, components.SecretStoreInitResponse)
        await initialise(session, SECRETS, *types, properties)
        with translated(ComponentError):
            reply = await session.stub(components.SecretStoreStub).features(components.FeaturesRequest())
        self.features = frozenset(_KNOWN[name] for name in reply.features if name in _KNOWN)

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        """NOT_FOUND, or no values at all, means that there is no such secret."""
        stub = self.connection.stub(components.SecretStoreStub)
        try:
            reply = await stub.get(components.GetSecretRequest(key=name, metadata=dict(metadata)))
        except GRPCError as error:
            if error.status is Status.NOT_FOUND:
                raise KeyError(name) from error
            raise error_of(error, ComponentError) from error
        if not reply.data:
            raise KeyError(name)
        return reply.data

    async def bulk_get(self, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        stub = self.connection.stub(components.SecretStoreStub)
        with translated(ComponentError):
            reply = await stub.bulk_get(components.BulkGetSecretRequest(metadata=dict(metadata)))
        return {name: values.secrets for name, values in reply.data.items()}


@asynccontextmanager
async def open_secrets(
    path: Path, services: frozenset[str], properties: Properties, context: DriverContext
) -> AsyncIterator[PluggableSecrets]:
    store = PluggableSecrets(Connection(path, context))
    async with kept(store.connection, partial(store.begin, properties.passed_on)):
        yield store
