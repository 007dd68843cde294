"""What a sequence of operations comes to, as one transaction of etcd. No I/O.

etcd refuses a transaction that writes a key twice, so the operations on a key are played through here: the
first decides what must hold of the stored key, those after it meet what was written before them, and only the
last is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from attrs import frozen

from meshnode.errors import EtagMismatch
from meshnode.interfaces import Concurrency, DeleteRequest, SetRequest, StateOperation

__all__ = ["Plan", "mismatch", "plan"]


@final
@frozen
class Plan:
    """`conditions`: the revision that each key must have, 0 for one that must not be there.

    `writes`: what is done with each key.
    """

    conditions: Mapping[str, int]
    writes: Mapping[str, StateOperation]


def mismatch(key: str, etag: str | None) -> EtagMismatch:
    if etag:
        return EtagMismatch(
            f"possible etag mismatch. error from state store: the etag of {key} is not {etag}"
        )
    return EtagMismatch(f"first write of key {key}, which already exists")


def plan(operations: Sequence[StateOperation]) -> Plan:
    """Raises `EtagMismatch` where an operation cannot succeed, whatever is stored."""
    conditions: dict[str, int] = {}
    writes: dict[str, StateOperation] = {}
    for operation in operations:
        key, before = operation.key, writes.get(operation.key)
        first = isinstance(operation, SetRequest) and operation.concurrency is Concurrency.FIRST_WRITE
        if operation.etag:
            # Nobody can know the revision of what this very transaction writes.
            if before is not None:
                raise mismatch(key, operation.etag)
            conditions[key] = _revision(key, operation.etag)
        elif first and before is None:
            conditions[key] = 0
        elif first and not isinstance(before, DeleteRequest):
            raise mismatch(key, None)
        writes[key] = operation
    return Plan(conditions, writes)


def _revision(key: str, etag: str) -> int:
    """The revision that an etag is; what can be none is not the stored one, as in Dapr."""
    revision = int(etag) if etag.isascii() and etag.isdecimal() and len(etag) < 20 else 0
    if not 0 < revision < 2**63 or str(revision) != etag:
        raise mismatch(key, etag)
    return revision
