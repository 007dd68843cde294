"""The token that user and password are exchanged for (asyncio side).

etcd forgets tokens: after five minutes without use, when a member restarts, when users or roles change. A
request that comes with a forgotten one is refused before anything is done, so it may be sent again with a new
one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import final

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from meshnode_etcd.wire.etcdserverpb import AuthenticateRequest, AuthStub

__all__ = ["NO_USER", "Login", "LoginRefused"]

NO_USER = "user name is empty"
"""etcd's word for a request without a token where it wants one."""
_STALE = ("invalid auth token", NO_USER, "revision of auth store is old")
_NOT_ENABLED = "authentication is not enabled"


@final
class LoginRefused(Exception):
    """etcd does not take this user and password."""


@final
class Login:
    """Without a user there is no token, and nothing to renew."""

    def __init__(self, username: str, password: str, log: logging.Logger) -> None:
        self._username = username
        self._password = password
        self._log = log
        self._lock = asyncio.Lock()
        self._token: str | None = None

    async def metadata(self, channel: Channel) -> dict[str, str]:
        """What a request is sent with."""
        if not self._username:
            return {}
        if self._token is None:
            await self.renew(channel, {})
        return {"token": self._token} if self._token else {}

    def is_stale(self, error: GRPCError) -> bool:
        """Whether the request was refused for its token alone."""
        message = error.message or ""
        return bool(self._username) and any(sign in message for sign in _STALE)

    async def renew(self, channel: Channel, used: dict[str, str]) -> None:
        """Get another token than the one used, unless somebody already has."""
        if not self._username:
            return
        async with self._lock:
            if self._token is not None and self._token != used.get("token", ""):
                return
            request = AuthenticateRequest(name=self._username, password=self._password)
            try:
                answer = await AuthStub(channel).authenticate(request)
            except GRPCError as error:
                if error.status is Status.FAILED_PRECONDITION and _NOT_ENABLED in (error.message or ""):
                    self._log.warning("etcd asks for no login; user and password have no effect")
                    self._token = ""
                    return
                if error.status is Status.INVALID_ARGUMENT:
                    raise LoginRefused(error.message or "the login was refused") from error
                raise
            self._token = answer.token
