"""The store: a dict of entries, and a heap of those that will expire.

Nothing here waits, so every operation is atomic by itself and no method is a checkpoint: a checkpoint would
cost more than the operation. Expiry is looked at on every read; `sweep` only gives the memory back, a bounded
number of entries at a time.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any, final

import trio

from meshnode.errors import BulkStateError, EtagMismatch, StateError
from meshnode.interfaces import (
    BulkGetResult,
    Concurrency,
    DeleteRequest,
    Feature,
    GetRequest,
    GetResult,
    QueryItem,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateOperation,
)
from meshnode_state_in_memory._query import page

__all__ = ["MemoryStore"]

_FEATURES = frozenset({Feature.ETAG, Feature.TRANSACTIONAL, Feature.TTL, Feature.QUERY_API, Feature.ACTOR})
_SWEEP_INTERVAL = 1.0
_SWEEP_SLICE = 1000


@final
class _Entry:
    """One stored value; `expires` is on trio's clock, `inf` for never."""

    __slots__ = ("etag", "expires", "value")

    def __init__(self, value: bytes, etag: str, expires: float) -> None:
        self.value = value
        self.etag = etag
        self.expires = expires


@final
class MemoryStore:
    """A `StateStore` over a dict. Etags never recur: a counter within a run, a random prefix per run."""

    __slots__ = ("_counter", "_entries", "_expiring", "_prefix", "_wake", "_wall")

    def __init__(self, *, wall: Callable[[], float], rng: random.Random) -> None:
        self._wall = wall
        self._prefix = f"{rng.getrandbits(32):08x}-"
        self._counter = itertools.count(1)
        self._entries: dict[str, _Entry] = {}
        self._expiring: list[tuple[float, str]] = []
        self._wake = trio.Event()

    @property
    def features(self) -> frozenset[Feature]:
        return _FEATURES

    def __len__(self) -> int:
        """Entries held, expired ones not yet swept included."""
        return len(self._entries)

    @property
    def pending_expiries(self) -> int:
        """How many expiries the sweep has still to look at."""
        return len(self._expiring)

    async def get(self, request: GetRequest) -> GetResult | None:
        return self._read(request.key)

    async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> Sequence[BulkGetResult]:
        return [BulkGetResult(request.key, self._read(request.key)) for request in requests]

    async def set(self, request: SetRequest) -> None:
        _check_set(request, self._live(request.key))
        self._put(request.key, self._entry(request))

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        failures: dict[int, StateError] = {}
        for position, request in enumerate(requests):
            try:
                await self.set(request)
            except StateError as error:
                failures[position] = error
        if failures:
            raise BulkStateError(failures)

    async def delete(self, request: DeleteRequest) -> None:
        _check_delete(request, self._live(request.key))
        self._entries.pop(request.key, None)

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> None:
        failures: dict[int, StateError] = {}
        for position, request in enumerate(requests):
            try:
                await self.delete(request)
            except StateError as error:
                failures[position] = error
        if failures:
            raise BulkStateError(failures)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        """Plays the operations on an overlay, where each sees the earlier ones; keeps it if all succeed."""
        overlay: dict[str, _Entry | None] = {}
        for operation in operations:
            key = operation.key
            current = overlay[key] if key in overlay else self._live(key)
            if isinstance(operation, SetRequest):
                _check_set(operation, current)
                overlay[key] = self._entry(operation)
            else:
                _check_delete(operation, current)
                overlay[key] = None
        for key, entry in overlay.items():
            if entry is None:
                self._entries.pop(key, None)
            else:
                self._put(key, entry)

    async def query(self, request: QueryRequest) -> QueryResult:
        candidates = []
        for key in [key for key in self._entries if key.startswith(request.key_prefix)]:
            entry = self._live(key)
            if entry is not None:
                candidates.append((QueryItem(key, entry.value, entry.etag), _parse(entry.value)))
        return page(request, candidates)

    async def ping(self) -> None:
        return None

    async def sweep(self) -> None:
        """Runs while the store is open and removes what expired, at most once a second and in slices."""
        while True:
            if not self._expiring:
                self._wake = trio.Event()
                await self._wake.wait()
            await trio.sleep_until(max(self._expiring[0][0], trio.current_time() + _SWEEP_INTERVAL))
            while self._sweep_slice():
                await trio.lowlevel.checkpoint()

    def _sweep_slice(self) -> bool:
        """Drops up to a slice of expired entries; True when there may be more."""
        now = trio.current_time()
        for _ in range(_SWEEP_SLICE):
            if not self._expiring or self._expiring[0][0] > now:
                return False
            _, key = heapq.heappop(self._expiring)
            entry = self._entries.get(key)
            if entry is not None and entry.expires <= now:
                del self._entries[key]
        return True

    def _live(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.expires != inf and entry.expires <= trio.current_time():
            del self._entries[key]
            return None
        return entry

    def _read(self, key: str) -> GetResult | None:
        entry = self._live(key)
        if entry is None:
            return None
        if entry.expires == inf:
            return GetResult(entry.value, entry.etag)
        return GetResult(entry.value, entry.etag, {"ttlExpireTime": self._wall_time(entry.expires)})

    def _wall_time(self, expires: float) -> str:
        moment = datetime.fromtimestamp(self._wall() + expires - trio.current_time(), UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _entry(self, request: SetRequest) -> _Entry:
        ttl = request.ttl
        expires = trio.current_time() + ttl if ttl is not None and ttl > 0 else inf
        return _Entry(request.value, self._prefix + str(next(self._counter)), expires)

    def _put(self, key: str, entry: _Entry) -> None:
        self._entries[key] = entry
        if entry.expires == inf:
            return
        if len(self._expiring) > 2 * len(self._entries) + _SWEEP_SLICE:
            # A key that is overwritten leaves its old expiry behind; without this they would pile up.
            self._expiring = [
                (one.expires, name) for name, one in self._entries.items() if one.expires != inf
            ]
            heapq.heapify(self._expiring)
        else:
            heapq.heappush(self._expiring, (entry.expires, key))
        self._wake.set()


def _mismatch(key: str) -> EtagMismatch:
    """In Dapr's words, which SDKs look for."""
    return EtagMismatch(f"possible etag mismatch. error from state store: the etag of {key} is another one")


def _check_set(request: SetRequest, current: _Entry | None) -> None:
    if request.etag:
        if current is None or current.etag != request.etag:
            raise _mismatch(request.key)
    elif request.concurrency is Concurrency.FIRST_WRITE and current is not None:
        why = f"first write of key {request.key}, which already exists"
        raise EtagMismatch(f"possible etag mismatch. error from state store: {why}")


def _check_delete(request: DeleteRequest, current: _Entry | None) -> None:
    if request.etag and (current is None or current.etag != request.etag):
        raise _mismatch(request.key)


def _parse(value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return None
