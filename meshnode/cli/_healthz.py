"""The one HTTP answer: `GET /v1.0/healthz/outbound` (and `/v1.0/healthz`), because some SDKs poll it before
their first gRPC call.

`meshnode run` serves it, never the node. 204 when the node is healthy, 500 when it is not, 404 for
everything else. What a request may cost is bounded: one head of at most 8 KiB within a few seconds per
connection, one answer, close.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import trio

__all__ = ["HealthCheck", "answer", "serve_connection"]

HealthCheck = Callable[[str], Awaitable[bool]]
"""Asks the node about the name of a service; an empty name is the whole node."""

DAPR_SERVICE = "dapr.proto.runtime.v1.Dapr"

_SERVICES = {"/v1.0/healthz": "", "/v1.0/healthz/outbound": DAPR_SERVICE}
_MAX_HEAD = 8 * 1024
_HEAD_SECONDS = 5
_CHECK_SECONDS = 5
"""A node that takes longer to say how it is, is not well."""
_REASONS = {204: "No Content", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
            500: "Internal Server Error"}  # fmt: skip


async def serve_connection(stream: trio.abc.Stream, check: HealthCheck) -> None:
    """Answer one request and close."""
    async with aclosing(stream):
        try:
            with trio.move_on_after(_HEAD_SECONDS) as scope:
                head = await _read_head(stream)
            if scope.cancelled_caught or head is None:
                return
            await stream.send_all(await answer(head, check))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


async def answer(head: bytes, check: HealthCheck) -> bytes:
    """The whole response to a request's head."""
    words = head.split(b"\r\n", 1)[0].split()
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _response(400, "ERR_MALFORMED_REQUEST", "this is not an HTTP request")
    method, target = words[0].decode("latin-1"), words[1].decode("latin-1").partition("?")[0]
    service = _SERVICES.get(target.rstrip("/"))
    if service is None:
        return _response(404, "ERR_NOT_FOUND", "meshnode serves its API over gRPC only")
    if method not in ("GET", "HEAD"):
        return _response(405, "ERR_METHOD_NOT_ALLOWED", "only GET is answered here")
    with trio.move_on_after(_CHECK_SECONDS):
        if await check(service):
            return _response(204)
    return _response(500, "ERR_HEALTH_NOT_READY", "the node is not ready")


async def _read_head(stream: trio.abc.ReceiveStream) -> bytes | None:
    head = bytearray()
    while b"\r\n\r\n" not in head:
        chunk = await stream.receive_some(_MAX_HEAD)
        head += chunk
        if not chunk or len(head) > _MAX_HEAD:
            return None
    return bytes(head)


def _response(status: int, code: str = "", message: str = "") -> bytes:
    body = json.dumps({"errorCode": code, "message": message}).encode() if code else b""
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}", "connection: close"]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
