"""A secret store, served."""

from __future__ import annotations

from typing import Any

from meshnode.errors import ComponentError, Status
from meshnode.interfaces import SecretStore
from meshnode.pluggable.server.instances import Instances
from meshnode.pluggable.server.method import Method, service
from meshnode.wire.dapr.proto.components import v1 as components

__all__ = ["secret_services"]


def secret_services(instances: Instances) -> list[Any]:
    methods: dict[str, Method] = {"Features": _features, "Get": _get, "BulkGet": _bulk_get, "Ping": _ping}
    base = components.SecretStoreBase()
    return [service(base, instances, components.SecretStoreInitResponse, methods)]


async def _features(store: SecretStore, _: Any) -> components.FeaturesResponse:
    return components.FeaturesResponse(features=sorted(one.value for one in store.features))


async def _get(store: SecretStore, request: components.GetSecretRequest) -> components.GetSecretResponse:
    try:
        found = await store.get(request.key, request.metadata)
    except KeyError:
        raise ComponentError(f"there is no secret {request.key!r}", status=Status.NOT_FOUND) from None
    return components.GetSecretResponse(data=dict(found))


async def _bulk_get(
    store: SecretStore, request: components.BulkGetSecretRequest
) -> components.BulkGetSecretResponse:
    found = await store.bulk_get(request.metadata)
    return components.BulkGetSecretResponse(
        data={name: components.SecretResponse(secrets=dict(values)) for name, values in found.items()}
    )


async def _ping(_store: SecretStore, _: Any) -> components.PingResponse:
    return components.PingResponse()
