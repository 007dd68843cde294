"""API tokens: what a caller of the node's API must show (`DAPR_API_TOKEN`), and what the node shows to its
application (`APP_API_TOKEN`).

Both travel in the metadata key `dapr-api-token`. A call without the right one ends as the reference's does:
UNAUTHENTICATED `Unauthorized`.
"""

from __future__ import annotations

import hmac
from typing import final

from meshnode.errors import ErrorInfoDetail, MeshError, Status

__all__ = ["TOKEN_HEADER", "TokenCheck", "Unauthorized"]

TOKEN_HEADER = "dapr-api-token"


@final
class Unauthorized(MeshError):
    """The API token is missing or wrong."""

    status = Status.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("Unauthorized", ErrorInfoDetail("Unauthorized", {"http.code": "401"}))


@final
class TokenCheck:
    """Compares in constant time; with no token configured every call passes."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def __bool__(self) -> bool:
        return bool(self._token)

    def check(self, presented: bytes | None) -> None:
        """Raise `Unauthorized` unless the token is the configured one."""
        if self._token and not hmac.compare_digest(presented or b"", self._token):
            raise Unauthorized
