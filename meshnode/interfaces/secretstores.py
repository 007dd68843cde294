"""Secret stores: what GetSecret and GetBulkSecret read, and where `secretKeyRef` finds its values."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

__all__ = ["SecretFeature", "SecretStore"]


class SecretFeature(enum.Enum):
    """What a store can do, with the names Dapr's GetMetadata reports."""

    MULTIPLE_KEY_VALUES_PER_SECRET = "MULTIPLE_KEY_VALUES_PER_SECRET"


@runtime_checkable
class SecretStore(Protocol):
    """What a secret-store driver yields. Values appear in no log line and in no error.

    `metadata` is the request's. A name is one name: two that differ never mean the same secret, for the
    node's scopes compare them as they are. Failures are `ComponentError`s.
    """

    @property
    def features(self) -> frozenset[SecretFeature]: ...

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        """The secret's key/value pairs (a single-valued secret has its own name as key). Raises `KeyError`
        when there is none.
        """
        ...

    async def bulk_get(self, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """Every secret of the store: name -> key/value pairs."""
        ...
