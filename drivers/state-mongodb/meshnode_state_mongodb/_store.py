"""The store: requests become commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final
from uuid import UUID

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from meshnode.errors import BulkStateError, ComponentUnavailable, StateError, Status
from meshnode.interfaces import (
    BulkGetResult,
    DeleteRequest,
    DriverContext,
    Feature,
    GetRequest,
    GetResult,
    QueryItem,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateOperation,
)
from meshnode_state_mongodb._client import Client, Document
from meshnode_state_mongodb._documents import alive, result, value_of
from meshnode_state_mongodb._errors import InDoubt
from meshnode_state_mongodb._operations import write
from meshnode_state_mongodb._query import Query

__all__ = ["MongoStore"]

_FEATURES = frozenset({Feature.ETAG, Feature.TTL, Feature.QUERY_API})
_OF_REPLICA_SETS = frozenset({Feature.TRANSACTIONAL, Feature.ACTOR})


@final
class MongoStore:
    """A `StateStore` on MongoDB."""

    def __init__(self, client: Client, context: DriverContext) -> None:
        self._client = client
        self._context = context

    @property
    def features(self) -> frozenset[Feature]:
        return _FEATURES | _OF_REPLICA_SETS if self._client.transactional else _FEATURES

    async def get(self, request: GetRequest) -> GetResult | None:
        condition = {"_id": request.key, **alive(self._client.now())}
        found = await self._client.call(lambda: self._client.collection.find_one(condition))
        return None if found is None else result(found)

    async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> Sequence[BulkGetResult]:
        if not requests:
            return []
        keys = [request.key for request in requests]
        condition = {"_id": {"$in": list(dict.fromkeys(keys))}, **alive(self._client.now())}
        documents = await self._client.call(lambda: self._client.collection.find(condition).to_list())
        found = {document["_id"]: result(document) for document in documents}
        return [BulkGetResult(key, found.get(key)) for key in keys]

    async def set(self, request: SetRequest) -> None:
        await self._write(request)

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        await self._write_all(requests)

    async def delete(self, request: DeleteRequest) -> None:
        await self._write(request)

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> None:
        await self._write_all(requests)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        if not self._client.transactional:
            message = "transactions need a MongoDB that is a replica set"
            raise StateError(message, status=Status.FAILED_PRECONDITION)
        if not operations:
            return
        pairs = [(operation, self._new_etag()) for operation in operations]
        now = self._client.now()

        async def body(session: AsyncClientSession, collection: AsyncCollection[Document]) -> None:
            for operation, etag in pairs:
                await write(collection, operation, etag, now, session)

        await self._client.call(lambda: self._client.transaction(body), writes=True)

    async def query(self, request: QueryRequest) -> QueryResult:
        query = Query(request)
        condition = {"$and": [query.filter, alive(self._client.now())]}
        # One more than asked for tells whether there is another page.
        limit = query.limit + 1 if query.limit else 0
        documents = await self._client.call(
            lambda: self._client.collection.find(
                condition, sort=query.sort, skip=query.skip, limit=limit
            ).to_list()
        )
        token = ""
        if query.limit and len(documents) > query.limit:
            documents = documents[: query.limit]
            token = str(query.skip + query.limit)
        return QueryResult(tuple(_item(document) for document in documents), token)

    async def ping(self) -> None:
        await self._client.call(self._client.ping)

    async def _write(self, request: StateOperation) -> None:
        etag, now = self._new_etag(), self._client.now()
        await self._client.call(lambda: write(self._client.collection, request, etag, now), writes=True)

    async def _write_all(self, requests: Sequence[StateOperation]) -> None:
        """One after the other. A server that is away is not asked for each anew."""
        failures: dict[int, StateError] = {}
        for position, request in enumerate(requests):
            try:
                await self._write(request)
            except StateError as error:
                failures[position] = error
            except ComponentUnavailable as error:
                if position == len(failures) and not isinstance(error, InDoubt):
                    raise
                failures[position] = StateError(error.message)
                rest = StateError(f"not tried, for the one before failed: {error.message}")
                failures |= dict.fromkeys(range(position + 1, len(requests)), rest)
                break
        if failures:
            raise BulkStateError(failures)

    def _new_etag(self) -> str:
        return str(UUID(int=self._context.rng.getrandbits(128), version=4))


def _item(document: Document) -> QueryItem:
    return QueryItem(document["_id"], value_of(document.get("value")), str(document.get("_etag", "")))
