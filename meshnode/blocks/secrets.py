"""The secrets block: GetSecret and GetBulkSecret, within the scopes that the Configuration sets.

A scope decides before the store is asked, so whoever may not read a secret does not learn whether there is
one. That there is no such secret is an answer, not a failure: it is not tried again and no breaker counts it.
Values are never logged, nor put into an error.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar, final

from attrs import frozen

from meshnode.blocks.call import Call
from meshnode.blocks.scoped import scoped
from meshnode.components import Opened
from meshnode.errors import CircuitOpen, ErrorInfoDetail, MeshError, ResourceInfoDetail, Status
from meshnode.interfaces import SecretStore
from meshnode.resiliency import Policies, Policy
from meshnode.wire.dapr.proto.runtime import v1 as runtime

if TYPE_CHECKING:
    from meshnode.config.sections import SecretsScope

__all__ = ["ScopedStore", "SecretsBlock", "build_secret_stores"]

T = TypeVar("T")

_log = logging.getLogger("meshnode.secrets")

_KIND = "Secretstore"
_KUBERNETES = "kubernetes"
"""The store that Dapr adds by itself inside a cluster; scopes for it stand in shared configurations."""


def _everything(name: str) -> bool:
    return True


@frozen(eq=False)
class ScopedStore:
    """One opened secret store: its outbound policy, and which secrets the application may read."""

    name: str
    driver: SecretStore
    policy: Policy
    allows: Callable[[str], bool] = _everything


def build_secret_stores(
    opened: Sequence[Opened], policies: Policies, scopes: Iterable[SecretsScope]
) -> dict[str, ScopedStore]:
    """The secret stores among the components, by name, each with its scope."""
    by_store = {scope.store_name: scope.allows for scope in scopes}
    stores: dict[str, ScopedStore] = {}
    for one in opened:
        if one.planned.kind != "secretstores" or one.instance is None:
            continue
        name = one.planned.component.name
        allows = by_store.get(name, _everything)
        stores[name] = ScopedStore(name, one.instance, policies.for_component(name, _KIND), allows)
    for name in sorted(by_store.keys() - stores.keys() - {_KUBERNETES}):
        # A misspelt name would leave the store it was meant for open.
        _log.warning("secrets.scopes: no secret store %s is loaded, so its scope holds nothing back", name)
    return stores


@final
class SecretsBlock:
    """All secret stores of one node, by component name."""

    def __init__(self, stores: Mapping[str, ScopedStore]) -> None:
        self._stores = stores

    async def get(self, request: runtime.GetSecretRequest, call: Call) -> runtime.GetSecretResponse:
        """Raises `MeshError`: PERMISSION_DENIED outside the scope, INTERNAL where there is no such secret."""
        store, key = self._store(request.store_name), request.key
        if not store.allows(key):
            raise _error(
                Status.PERMISSION_DENIED,
                "ERR_PERMISSION_DENIED",
                store.name,
                f'access denied by policy to get "{key}" from "{store.name}"',
            )
        found = await _asked(
            store,
            partial(_get, store.driver, key, request.metadata),
            f"failed getting secret with key {key} from secret store {store.name}",
            call,
        )
        if found is None:
            message = (
                f"failed getting secret with key {key} from secret store {store.name}: secret {key} not found"
            )
            raise _error(Status.INTERNAL, "ERR_SECRET_GET", store.name, message)
        return runtime.GetSecretResponse(data=dict(found))

    async def bulk_get(
        self, request: runtime.GetBulkSecretRequest, call: Call
    ) -> runtime.GetBulkSecretResponse:
        """What the scope does not allow is left out, as if it were not there."""
        store = self._store(request.store_name)
        found = await _asked(
            store,
            partial(store.driver.bulk_get, request.metadata),
            f"failed getting secrets from secret store {store.name}",
            call,
        )
        data = {
            name: runtime.SecretResponse(secrets=dict(values))
            for name, values in found.items()
            if store.allows(name)
        }
        return runtime.GetBulkSecretResponse(data=data)

    def _store(self, name: str) -> ScopedStore:
        store = self._stores.get(name)
        if store is not None:
            return store
        if not self._stores:
            message = "secret store is not configured"
            reason = ErrorInfoDetail("ERR_SECRET_STORES_NOT_CONFIGURED")
            raise MeshError(message, reason, status=Status.FAILED_PRECONDITION)
        message = f"failed finding secret store with key {name}"
        raise _error(Status.INVALID_ARGUMENT, "ERR_SECRET_STORE_NOT_FOUND", name, message)


async def _get(driver: SecretStore, key: str, metadata: Mapping[str, str]) -> Mapping[str, str] | None:
    try:
        return await driver.get(key, metadata)
    except KeyError:
        return None


async def _asked(store: ScopedStore, operation: Callable[[], Awaitable[T]], failed: str, call: Call) -> T:
    """Under the store's policy; `failed` is what the block says around the driver's own words."""
    try:
        return await scoped(store.policy, operation, call)
    except CircuitOpen:
        raise
    except MeshError as error:
        raise _error(Status.INTERNAL, "ERR_SECRET_GET", store.name, f"{failed}: {error}") from error


def _error(status: Status, reason: str, store: str, message: str) -> MeshError:
    return MeshError(
        message, ErrorInfoDetail(reason), ResourceInfoDetail("secretstore", store), status=status
    )
