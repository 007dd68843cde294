"""Calls on trio's side, and errors in the node's words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, final

import trio_asyncio
from betterproto2.grpclib import ServiceStub
from grpclib.exceptions import GRPCError

from meshnode.errors import ComponentError, ComponentUnavailable, Status
from meshnode_etcd._keys import Keys
from meshnode_etcd._link import Lost
from meshnode_etcd._login import LoginRefused
from meshnode_etcd._members import Deliver, Members, Method
from meshnode_etcd._options import ConnectionOptions
from meshnode_etcd.wire.etcdserverpb import (
    KvStub,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    LeaseStub,
    RangeRequest,
    TxnRequest,
    TxnResponse,
    WatchRequest,
)

__all__ = ["Away", "Client", "on_asyncio"]

S = TypeVar("S", bound=ServiceStub)
Q = TypeVar("Q")
R = TypeVar("R")

_MAX_UNDER_WAY = 2_000
_NO_LEASE = "requested lease not found"
_PASSED_ON = (Status.INVALID_ARGUMENT, Status.RESOURCE_EXHAUSTED, Status.PERMISSION_DENIED)
"""What etcd answers to a request that is wrong, too large, or not allowed."""


@final
class Away(ComponentUnavailable):
    """No member answered. `sent` is False when surely nothing was done that anybody sees."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


async def on_asyncio(function: Callable[..., Awaitable[R]], *arguments: Any) -> R:
    """Runs the function on the asyncio side; cancelling this cancels it, and waits for its end."""
    result: R = await trio_asyncio.aio_as_trio(function)(*arguments)  # type: ignore[attr-defined,no-untyped-call]
    return result


@final
class Client:
    """`refusal` is the kind's own error, for what etcd refuses."""

    def __init__(self, options: ConnectionOptions, members: Members, refusal: type[ComponentError]) -> None:
        self.keys = Keys(options.key_prefix_path)
        self._name = f"etcd at {options.endpoints}"
        self._members = members
        self._refusal = refusal
        self._under_way = 0

    async def call(
        self, stub: type[S], method: Method[S, Q, R], request: Q, *, repeatable: bool = False
    ) -> R:
        """One request. `repeatable`: it may be sent again, for it changes nothing that anybody sees."""
        if self._under_way >= _MAX_UNDER_WAY:
            message = f"{self._name}: too many operations wait"
            raise self._refusal(message, status=Status.RESOURCE_EXHAUSTED)
        self._under_way += 1
        try:
            return await on_asyncio(self._members.call, stub, method, request, repeatable)
        except (Lost, GRPCError, LoginRefused) as error:
            raise self.error(error, repeatable=repeatable) from error
        finally:
            self._under_way -= 1

    def error(self, error: Lost | GRPCError | LoginRefused, *, repeatable: bool = True) -> ComponentError:
        if isinstance(error, Lost):
            done = error.sent and not repeatable
            tail = "; the request may have been carried out" if done else ""
            return Away(f"{self._name}: {error}{tail}", sent=done)
        if isinstance(error, LoginRefused):
            return self._refusal(f"{self._name}: {error}", status=Status.UNAUTHENTICATED)
        if error.status is Status.NOT_FOUND and _NO_LEASE in (error.message or ""):
            return Away(f"{self._name}: the lease was over before it could be used", sent=False)
        status = error.status if error.status in _PASSED_ON else None
        return self._refusal(f"{self._name}: {error.message}", status=status)

    async def transact(self, request: TxnRequest, *, repeatable: bool = False) -> TxnResponse:
        return await self.call(KvStub, KvStub.txn, request, repeatable=repeatable)

    async def grant(self, seconds: int) -> int:
        """A lease of so many seconds at least. One that nobody uses ends with its time: it may be asked for
        again.
        """
        request = LeaseGrantRequest(ttl=seconds)
        return (await self.call(LeaseStub, LeaseStub.lease_grant, request, repeatable=True)).id

    async def revoke(self, leases: Iterable[int]) -> None:
        """Give leases back that no key needs. One that cannot be given back now ends with its time."""
        for lease in leases:
            try:
                await self.call(LeaseStub, LeaseStub.lease_revoke, LeaseRevokeRequest(id=lease))
            except ComponentError:
                return

    async def ping(self) -> None:
        """A user that may not read here is an answer too."""
        request = RangeRequest(key=self.keys.first, keys_only=True)
        try:
            await self.call(KvStub, KvStub.range, request, repeatable=True)
        except ComponentError as error:
            if error.code is not Status.PERMISSION_DENIED:
                raise

    async def listen(self, requests: Sequence[WatchRequest], deliver: Deliver) -> ComponentError | None:
        """Watches until one of them ends, or all do; why, if it was not for what `deliver` has got last.

        `deliver` is called on the asyncio side; until it returns nothing more is taken.
        """
        try:
            await on_asyncio(self._members.listen, requests, deliver)
        except (Lost, GRPCError, LoginRefused) as error:
            return self.error(error)
        return None
