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

    def __init__(self, why: str) -> None:
        metadata = {"http.code": "401", "http.error_message": why}
        super().__init__("Unauthorized", ErrorInfoDetail("Unauthorized", metadata))


@final
class TokenCheck:
    """Compares in constant time; with no token configured every call passes."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def __bool__(self) -> bool:
        return bool(self._token)

    def check(self, presented: bytes | None) -> None:
        """Raise `Unauthorized` unless the token is the configured one."""
        if not self._token:
            return
        if presented is None:
            raise Unauthorized("missing api token in request metadata")
        if not hmac.compare_digest(presented, self._token):
            raise Unauthorized("authentication error: api token mismatch")
