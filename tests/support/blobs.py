"""A service of four methods over messages that are plain bytes, for tests that care about calls and not
about what they carry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from meshnode.transport import Cardinality, Handler

__all__ = ["SERVICE", "Blob", "blob_service"]

SERVICE = "/test.Blobs/"


class Blob(bytes):
    """A message that is its own encoding."""

    @classmethod
    def parse(cls, data: bytes) -> Blob:
        return cls(data)


Func = Callable[[Any], Awaitable[None]]


def blob_service(
    *,
    unary: Func | None = None,
    server: Func | None = None,
    client: Func | None = None,
    both: Func | None = None,
) -> Any:
    """An object with `__mapping__` that serves `/test.Blobs/{Unary,Server,Client,Both}` with the functions
    given.
    """
    given = {
        "Unary": (unary, Cardinality.UNARY_UNARY),
        "Server": (server, Cardinality.UNARY_STREAM),
        "Client": (client, Cardinality.STREAM_UNARY),
        "Both": (both, Cardinality.STREAM_STREAM),
    }
    mapping = {
        SERVICE + name: Handler(func, cardinality, Blob, Blob)
        for name, (func, cardinality) in given.items()
        if func is not None
    }

    class Service:
        def __mapping__(self) -> dict[str, Handler]:
            return mapping

    return Service()
