"""The bearer token: Kubernetes writes a new one into a pod's file long before the old one ends."""

from __future__ import annotations

from typing import Final, final

import trio

from meshnode.errors import ComponentError
from meshnode_secretstores_kubernetes._cluster import Cluster

__all__ = ["Token"]

_FRESH: Final = 60.0
"""Seconds a token that was read is used, as in Kubernetes' own client."""


@final
class Token:
    """`header` gives what stands in requests. Never part of an error."""

    def __init__(self, cluster: Cluster) -> None:
        self._path = trio.Path(cluster.token_file) if cluster.token_file is not None else None
        self._value = cluster.token
        self._until = -1.0

    async def header(self) -> dict[str, str]:
        if self._path is not None and trio.current_time() >= self._until:
            self._value = await self._read(self._path)
            self._until = trio.current_time() + _FRESH
        return {"Authorization": f"Bearer {_checked(self._value)}"} if self._value else {}

    def refused(self) -> bool:
        """Notes that the server did not know it; whether reading it anew may help."""
        self._until = -1.0
        return self._path is not None

    async def _read(self, path: trio.Path) -> str:
        try:
            return (await path.read_text(encoding="utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            if self._value:
                return self._value  # it may be in the middle of being replaced
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ComponentError(f"the token file {path} cannot be read: {reason}") from None


def _checked(token: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ComponentError("the token holds characters that no token has")
    return token
