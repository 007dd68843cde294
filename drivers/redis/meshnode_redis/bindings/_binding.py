"""The operations: each one command, or one script, so that it happens as a whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import final

from meshnode.errors import InvalidArgument
from meshnode.interfaces import BindingRequest, BindingResult
from meshnode_redis._client import Client
from meshnode_redis._script import Arguments, script

__all__ = ["RedisBinding"]

_NOTHING = BindingResult()

_INCREMENT = script("""
redis.call('INCR', KEYS[1])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 0
""")


@final
class RedisBinding:
    """An `OutputBinding`. The request's metadata has the `key`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def operations(self) -> Sequence[str]:
        return ("create", "get", "delete", "increment")

    async def invoke(self, request: BindingRequest) -> BindingResult:
        key = request.metadata.get("key", "")
        if not key:
            raise InvalidArgument("redis binding: missing key in request metadata")
        arguments, repeatable = _command(key, request)
        # What changes anything is never repeated: where the answer was lost, it may have been done.
        reply = await self._client.call(key, arguments, repeatable=repeatable)
        return BindingResult(reply) if request.operation == "get" and reply is not None else _NOTHING


def _command(key: str, request: BindingRequest) -> tuple[Arguments, bool]:
    """What to send, and whether it may be sent twice."""
    match request.operation:
        case "create":
            ttl = _ttl(request.metadata)
            tail: Arguments = ("EX", ttl) if ttl is not None else ()
            return ("SET", key, request.data, *tail), False
        case "get" if request.metadata.get("delete") == "true":
            return ("GETDEL", key), False
        case "get":
            return ("GET", key), True
        case "delete":
            return ("DEL", key), False
        case "increment":
            ttl = _ttl(request.metadata)
            return ("INCR", key) if ttl is None else ("EVALSHA", _INCREMENT, 1, key, ttl), False
    raise InvalidArgument(f"redis binding: invalid operation type: {request.operation}")


def _ttl(metadata: Mapping[str, str]) -> int | None:
    text = metadata.get("ttlInSeconds", "")
    if not text:
        return None
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise InvalidArgument(f"ttlInSeconds value must be a valid integer: actual is '{text}'")
    if int(text) <= 0:
        raise InvalidArgument(f"ttlInSeconds value must be higher than zero: actual is {text}")
    return int(text)
