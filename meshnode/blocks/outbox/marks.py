"""Markers: keys that say what became of a transaction. Pure but for asking a store."""

from __future__ import annotations

import enum

from meshnode.errors import EtagMismatch
from meshnode.interfaces import Concurrency, DeleteRequest, Feature, GetRequest, SetRequest, StateStore

__all__ = ["Mark", "bury", "finish", "look", "marker_write"]

_COMMITTED = b"0"
_PUBLISHED = b"1"
_BURIED = b"discarded"
_PUBLISHED_TTL = 24 * 3600
"""Seconds for which a published message is remembered, in case the broker brings it again."""
_BURIED_TTL = 24 * 3600
"""Seconds for which a transaction stays refused: far more than one can take."""


class Mark(enum.Enum):
    MISSING = "missing"
    COMMITTED = "committed"
    PUBLISHED = "published"
    BURIED = "buried"


_MARKS = {_PUBLISHED: Mark.PUBLISHED, _BURIED: Mark.BURIED}


def marker_write(key: str) -> SetRequest:
    """The operation that goes into the transaction: refused where a tombstone stands."""
    return SetRequest(key, _COMMITTED, concurrency=Concurrency.FIRST_WRITE)


async def look(store: StateStore, key: str) -> Mark:
    found = await store.get(GetRequest(key))
    if found is None or not found.data:
        return Mark.MISSING
    return _MARKS.get(found.data.strip(b'"'), Mark.COMMITTED)  # daprd's may have quotes


async def bury(store: StateStore, key: str) -> bool:
    """Put a tombstone where no marker is; False where there is one after all."""
    ttl = _BURIED_TTL if Feature.TTL in store.features else None
    try:
        await store.set(SetRequest(key, _BURIED, concurrency=Concurrency.FIRST_WRITE, ttl=ttl))
    except EtagMismatch:
        return False
    return True


async def finish(store: StateStore, key: str, *, remember: bool) -> None:
    """Done with a marker whose event is published.

    `remember` leaves a note for a while, where the store forgets by itself; without one a repeated internal
    message cannot be told from one whose transaction has not ended.
    """
    if remember and Feature.TTL in store.features:
        await store.set(SetRequest(key, _PUBLISHED, ttl=_PUBLISHED_TTL))
    else:
        await store.delete(DeleteRequest(key))
