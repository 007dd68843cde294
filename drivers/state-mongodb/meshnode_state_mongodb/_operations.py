"""One set or delete, on the asyncio side: one command on one document, done as a whole or not at all."""

from __future__ import annotations

from datetime import datetime

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from meshnode.errors import EtagMismatch
from meshnode.interfaces import Concurrency, DeleteRequest, SetRequest, StateOperation
from meshnode_state_mongodb._client import Document
from meshnode_state_mongodb._documents import alive, dead, fields

__all__ = ["write"]

_ATTEMPTS = 20
"""Two that make one document at the same time: the server may refuse one of them, who then finds it there."""


async def write(
    collection: AsyncCollection[Document],
    operation: StateOperation,
    etag: str,
    now: datetime,
    session: AsyncClientSession | None = None,
) -> None:
    """Raises `EtagMismatch` when its condition does not hold."""
    if isinstance(operation, DeleteRequest):
        await _delete(collection, operation, now, session)
        return
    update = {"$set": fields(operation, etag, now)}
    if operation.etag:
        condition = {"_id": operation.key, "_etag": operation.etag, **alive(now)}
        if (await collection.update_one(condition, update, session=session)).matched_count == 0:
            raise _mismatch(operation.key)
    elif operation.concurrency is Concurrency.FIRST_WRITE:
        try:
            await collection.update_one(
                {"_id": operation.key, **dead(now)}, update, upsert=True, session=session
            )
        except DuplicateKeyError:
            raise EtagMismatch(f"first write of key {operation.key}, which already exists") from None
    else:
        await _put(collection, operation, update, session)


async def _put(
    collection: AsyncCollection[Document],
    request: SetRequest,
    update: Document,
    session: AsyncClientSession | None,
) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await collection.update_one({"_id": request.key}, update, upsert=True, session=session)
        except DuplicateKeyError:
            # In a transaction it is the end of that one.
            if session is not None or attempt == _ATTEMPTS:
                raise
        else:
            return


async def _delete(
    collection: AsyncCollection[Document],
    request: DeleteRequest,
    now: datetime,
    session: AsyncClientSession | None,
) -> None:
    condition: Document = {"_id": request.key}
    if request.etag:
        condition |= {"_etag": request.etag, **alive(now)}
    deleted = (await collection.delete_one(condition, session=session)).deleted_count
    if request.etag and deleted == 0:
        raise _mismatch(request.key)


def _mismatch(key: str) -> EtagMismatch:
    """In Dapr's words, which SDKs look for."""
    return EtagMismatch(f"possible etag mismatch. error from state store: the etag of {key} is another one")
