"""The lock block: TryLockAlpha1 and UnlockAlpha1 between the wire and a driver.

Per store: the key prefix (`lock||appid||resource`), the outbound resiliency policy, and the errors Dapr's
clients know. A lock whose answer was lost is not taken back: it is over when its time is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import final

from attrs import frozen

from meshnode.blocks.call import Call
from meshnode.blocks.scoped import scoped
from meshnode.components import Opened
from meshnode.errors import (
    CircuitOpen,
    ConfigError,
    ErrorInfoDetail,
    InvalidArgument,
    MeshError,
    Problem,
    ResourceInfoDetail,
    Status,
)
from meshnode.interfaces import LockStore
from meshnode.resiliency import Policies, Policy
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["FENCING_TOKEN", "LockBlock", "Locks", "build_locks"]

FENCING_TOKEN = "meshnode-fencing-token"
"""The response metadata of TryLockAlpha1 that carries the token, in decimal, of a lock that was taken."""

_API, _SEPARATOR, _PREFIX = "lock", "||", "keyPrefix"


@frozen(eq=False)
class Locks:
    """One opened lock store as the block sees it. `prefix` is what its resources begin with."""

    name: str
    driver: LockStore
    prefix: str
    policy: Policy


def build_locks(opened: Sequence[Opened], policies: Policies, app_id: str) -> dict[str, Locks]:
    """The lock stores among the components, by name. Raises `ConfigError` for a prefix that cannot be
    used.
    """
    locks: dict[str, Locks] = {}
    problems: list[Problem] = []
    for one in opened:
        if one.planned.kind != "lock" or one.instance is None:
            continue
        component = one.planned.component
        strategy = one.reserved.get(_PREFIX, "").lower()
        if _SEPARATOR in strategy:
            item = component.get(_PREFIX)
            line = item.line if item is not None else component.source.line
            field = f"spec.metadata.{_PREFIX}"
            problems.append(Problem(_illegal(strategy), component.source.file, line, field))
        prefix = _prefix(strategy, component.name, app_id)
        policy = policies.for_component(component.name, "Lock")
        locks[component.name] = Locks(component.name, one.instance, prefix, policy)
    if problems:
        raise ConfigError(problems)
    return locks


def _prefix(strategy: str, store: str, app_id: str) -> str:
    """Unlike a state store's there is no `namespace`: that is a text like any other."""
    own = {"": app_id, "appid": app_id, "name": store, "none": ""}.get(strategy, strategy)
    return _SEPARATOR.join(filter(None, (_API, own))) + _SEPARATOR


def _illegal(text: str) -> str:
    return f"input key/keyPrefix '{text}' can't contain '{_SEPARATOR}'"


@final
class LockBlock:
    """All lock stores of one node, by component name."""

    def __init__(self, locks: Mapping[str, Locks]) -> None:
        self._locks = locks

    async def try_lock(self, request: runtime.TryLockRequest, call: Call) -> int | None:
        """The fencing token, or None where the lock is taken. Raises `InvalidArgument` for a request that
        cannot be right.
        """
        if request.expiry_in_seconds <= 0:
            raise _refused(request, "ExpiryInSeconds is not positive")
        store = self._store(request)
        failed = partial(_failed, request, "ERR_TRY_LOCK", "failed to try acquiring lock")
        resource = _resource(store, request, failed)
        operation = partial(store.driver.try_lock, resource, request.lock_owner, request.expiry_in_seconds)
        try:
            return await scoped(store.policy, operation, call)
        except MeshError as error:
            raise failed(error) from error

    async def unlock(self, request: runtime.UnlockRequest, call: Call) -> runtime.UnlockResponse:
        store = self._store(request)
        failed = partial(_failed, request, "ERR_UNLOCK", "failed to release lock")
        resource = _resource(store, request, failed)
        try:
            outcome = await scoped(
                store.policy, partial(store.driver.unlock, resource, request.lock_owner), call
            )
        except MeshError as error:
            raise failed(error) from error
        return runtime.UnlockResponse(status=runtime.UnlockResponseStatus(outcome.value))

    def _store(self, request: _Request) -> Locks:
        """In the reference's order, for a request may be wrong in several ways."""
        name = request.store_name
        if not self._locks:
            raise MeshError(
                "lock store is not configured",
                ErrorInfoDetail("ERR_LOCK_STORE_NOT_CONFIGURED"),
                status=Status.FAILED_PRECONDITION,
            )
        if not request.resource_id:
            raise _refused(request, "ResourceId is empty")
        if not request.lock_owner:
            raise _refused(request, "LockOwner is empty")
        store = self._locks.get(name)
        if store is None:
            raise InvalidArgument(f"lock store {name} not found", ErrorInfoDetail("ERR_LOCK_STORE_NOT_FOUND"))
        return store


_Request = runtime.TryLockRequest | runtime.UnlockRequest


def _resource(store: Locks, request: _Request, failed: partial[MeshError]) -> str:
    """The resource as the store knows it; one with `||` in it is INTERNAL, as in the reference."""
    if _SEPARATOR in request.resource_id:
        raise failed(InvalidArgument(_illegal(request.resource_id)))
    return store.prefix + request.resource_id


def _refused(request: _Request, what: str) -> InvalidArgument:
    message = f"{what} in lock store {request.store_name}"
    return InvalidArgument(message, *_details(request, "ERR_MALFORMED_REQUEST", message))


def _failed(request: _Request, reason: str, message: str, error: MeshError) -> MeshError:
    """INTERNAL whatever it was, as the reference answers; the words say it."""
    if isinstance(error, CircuitOpen):
        return error
    return MeshError(f"{message}: {error}", *_details(request, reason, message), status=Status.INTERNAL)


def _details(request: _Request, reason: str, message: str) -> tuple[ErrorInfoDetail, ResourceInfoDetail]:
    about = ResourceInfoDetail(_API, request.store_name, request.lock_owner, message)
    return ErrorInfoDetail(reason), about
