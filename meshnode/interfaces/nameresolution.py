"""Name resolution: who is where."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from attrs import frozen

__all__ = ["Instance", "NameResolver"]


@frozen
class Instance:
    """One running node of an app id; `address` is `host:port` of its internal gRPC server (or
    `unix:/path`).
    """

    app_id: str
    address: str
    namespace: str = "default"


@runtime_checkable
class NameResolver(Protocol):
    """What a name-resolution driver yields."""

    def announce(self, instance: Instance) -> AbstractAsyncContextManager[None]:
        """Make this node findable for as long as the context is open; a clean exit takes it out again."""
        ...

    async def resolve(self, app_id: str, namespace: str) -> Sequence[str]:
        """All live addresses, each `host:port`; empty when none is known. Not cached here: the caller
        caches.
        """
        ...

    @property
    def max_age(self) -> float:
        """Seconds for which an answer may be reused; 0 forbids it, `inf` for static lists."""
        ...
