"""Secret stores: where `secretKeyRef` finds its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

__all__ = ["SecretStore"]


@runtime_checkable
class SecretStore(Protocol):
    """What a secret-store driver yields."""

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        """The secret's key/value pairs (a single-valued secret has its own name as key). Raises `KeyError`
        when there is none.
        """
        ...

    async def bulk_get(self, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """Every secret of the store: name -> key/value pairs."""
        ...
