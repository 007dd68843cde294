"""State stores: the Protocol and its value types.

Keys arrive with their prefix already applied (`appid||key`); values are opaque bytes. An etag is a string
that changes with each write of its key. Errors: `EtagMismatch`, `EtagInvalid`, `ComponentUnavailable` (worth
a retry), `StateError` for the rest.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

__all__ = [
    "BulkGetResult",
    "Concurrency",
    "Consistency",
    "DeleteRequest",
    "Feature",
    "GetRequest",
    "GetResult",
    "QueryItem",
    "QueryRequest",
    "QueryResult",
    "SetRequest",
    "SortKey",
    "StateOperation",
    "StateStore",
]


class Feature(enum.Enum):
    """What a store can do, with the names Dapr's GetMetadata reports."""

    ETAG = "ETAG"
    TRANSACTIONAL = "TRANSACTIONAL"
    TTL = "TTL"
    QUERY_API = "QUERY_API"
    DELETE_WITH_PREFIX = "DELETE_WITH_PREFIX"
    ACTOR = "ACTOR"


class Concurrency(enum.Enum):
    """`FIRST_WRITE`: the etag given must still be the stored one, and without an etag the key must not
    exist. `LAST_WRITE`: etags are ignored unless given.
    """

    UNSPECIFIED = 0
    FIRST_WRITE = 1
    LAST_WRITE = 2


class Consistency(enum.Enum):
    """How far a write must have gone before it counts as done."""

    UNSPECIFIED = 0
    EVENTUAL = 1
    STRONG = 2


@frozen
class GetRequest:
    key: str
    consistency: Consistency = Consistency.UNSPECIFIED
    metadata: Mapping[str, str] = field(factory=dict)


@frozen
class GetResult:
    """A value that exists. `metadata` may carry `ttlExpireTime` (RFC 3339, UTC)."""

    data: bytes
    etag: str
    metadata: Mapping[str, str] = field(factory=dict)


@frozen
class BulkGetResult:
    """One key's answer in a bulk get: a value, nothing (`result` and `error` None), or an error of this key
    alone.
    """

    key: str
    result: GetResult | None = None
    error: Exception | None = None


@frozen
class SetRequest:
    """`ttl` is in whole seconds; None keeps the value until it is overwritten; -1 removes an expiry."""

    key: str
    value: bytes
    etag: str | None = None
    concurrency: Concurrency = Concurrency.UNSPECIFIED
    consistency: Consistency = Consistency.UNSPECIFIED
    ttl: int | None = None
    content_type: str = ""
    metadata: Mapping[str, str] = field(factory=dict)


@frozen
class DeleteRequest:
    """Deleting a key that is not there succeeds, unless an etag is given (then `EtagMismatch`)."""

    key: str
    etag: str | None = None
    concurrency: Concurrency = Concurrency.UNSPECIFIED
    consistency: Consistency = Consistency.UNSPECIFIED
    metadata: Mapping[str, str] = field(factory=dict)


StateOperation = SetRequest | DeleteRequest


@frozen
class SortKey:
    """A JSON path such as `person.org` and its direction."""

    key: str
    descending: bool = False


@frozen
class QueryRequest:
    """Dapr's state query: `filter` is the parsed JSON filter (`EQ`, `NEQ`, `GT`, `GTE`, `LT`, `LTE`, `IN`,
    `AND`, `OR`), or None for all.

    `limit` 0 means no limit; `token` is what the previous page returned. Only keys that begin with
    `key_prefix` are looked at.
    """

    filter: Mapping[str, Any] | None = None
    sort: Sequence[SortKey] = ()
    limit: int = 0
    token: str = ""
    key_prefix: str = ""
    metadata: Mapping[str, str] = field(factory=dict)


@frozen
class QueryItem:
    key: str
    data: bytes
    etag: str


@frozen
class QueryResult:
    items: Sequence[QueryItem]
    token: str = ""
    metadata: Mapping[str, str] = field(factory=dict)


@runtime_checkable
class StateStore(Protocol):
    """What a state driver yields. All methods may be called concurrently; cancelling one leaves the store
    usable.
    """

    @property
    def features(self) -> frozenset[Feature]: ...

    async def get(self, request: GetRequest) -> GetResult | None: ...

    async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> Sequence[BulkGetResult]:
        """Answers in the order of the requests; `parallelism` <= 0 leaves the choice to the store."""
        ...

    async def set(self, request: SetRequest) -> None: ...

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        """Not a transaction: all are tried, then one `BulkStateError` names those that failed.
        `ComponentUnavailable` when none can have been applied.
        """
        ...

    async def delete(self, request: DeleteRequest) -> None: ...

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> None: ...

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        """All or nothing, in order. Only where `Feature.TRANSACTIONAL`."""
        ...

    async def query(self, request: QueryRequest) -> QueryResult:
        """Only where `Feature.QUERY_API`."""
        ...

    async def ping(self) -> None:
        """Raises `ComponentUnavailable` when the backend does not answer."""
        ...
