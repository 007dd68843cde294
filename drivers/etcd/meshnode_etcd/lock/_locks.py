"""The store: what is decided holds only if the key is still as it was looked at, in one transaction."""

from __future__ import annotations

from typing import final

from meshnode.errors import LockError
from meshnode.interfaces import UnlockOutcome
from meshnode_etcd._client import Client
from meshnode_etcd.lock._held import Held, is_over, lease_seconds, pack, unpack
from meshnode_etcd.wire.etcdserverpb import (
    Compare,
    CompareCompareTarget,
    DeleteRangeRequest,
    KeyValue,
    KvStub,
    LeaseStub,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

__all__ = ["EtcdLocks"]


@final
class EtcdLocks:
    """A `LockStore` on etcd. A fencing token is the revision in which the lock was taken.

    Nothing is sent twice: where an answer was lost, it may have been done.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def try_lock(self, resource: str, owner: str, seconds: int) -> int | None:
        key = self._client.keys.of(resource)
        while True:
            found = await self._look(key)
            if found is not None and not await self._is_over(found):
                return None
            token = await self._take(key, found, Held(owner, seconds))
            # Where there was none and the key has changed, somebody else has taken it. One that was over may
            # just have been removed.
            if token is not None or found is None:
                return token

    async def unlock(self, resource: str, owner: str) -> UnlockOutcome:
        key = self._client.keys.of(resource)
        while True:
            found = await self._look(key)
            if found is None:
                return UnlockOutcome.LOCK_DOES_NOT_EXIST
            held = unpack(found.value)
            if held is None:
                raise LockError(f"the key of {resource} has a value that no lock store wrote")
            if await self._is_over(found):
                return UnlockOutcome.LOCK_DOES_NOT_EXIST
            if held.owner != owner:
                return UnlockOutcome.LOCK_BELONGS_TO_OTHERS
            gone = RequestOp(request_delete_range=DeleteRangeRequest(key=key))
            if await self._if_still(key, found, gone) is not None:
                await self._client.revoke([found.lease])
                return UnlockOutcome.SUCCESS

    async def ping(self) -> None:
        await self._client.ping()

    async def _look(self, key: bytes) -> KeyValue | None:
        answer = await self._client.call(KvStub, KvStub.range, RangeRequest(key=key), repeatable=True)
        return answer.kvs[0] if answer.kvs else None

    async def _is_over(self, found: KeyValue) -> bool:
        """What no lock store wrote, or has no lease, is never over."""
        held = unpack(found.value)
        if held is None or not found.lease:
            return False
        request = LeaseTimeToLiveRequest(id=found.lease)
        answer = await self._client.call(LeaseStub, LeaseStub.lease_time_to_live, request, repeatable=True)
        return is_over(held, answer.granted_ttl, answer.ttl)

    async def _take(self, key: bytes, found: KeyValue | None, held: Held) -> int | None:
        # The lease comes first, so that it is never younger than the lock: the lock's time runs from here.
        lease = await self._client.grant(lease_seconds(held.seconds))
        put = RequestOp(request_put=PutRequest(key=key, value=pack(held), lease=lease))
        try:
            token = await self._if_still(key, found, put)
        except LockError:  # refused: nothing was written. Where it is not known, the lease may be in use.
            await self._client.revoke([lease])
            raise
        if token is None:
            await self._client.revoke([lease])
        return token

    async def _if_still(self, key: bytes, found: KeyValue | None, operation: RequestOp) -> int | None:
        """The revision in which it was done; None where the key is no longer what was found."""
        revision = found.mod_revision if found is not None else 0
        same = Compare(target=CompareCompareTarget.MOD, key=key, mod_revision=revision)
        answer = await self._client.transact(TxnRequest(compare=[same], success=[operation]))
        if not answer.succeeded or answer.header is None:
            return None
        return answer.header.revision
