"""The binding."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import final

import httpx
import trio

from meshnode.errors import BindingError, ComponentUnavailable, InvalidArgument
from meshnode.interfaces import BindingRequest, BindingResult, DriverContext
from meshnode_bindings_http._options import Options
from meshnode_bindings_http._request import OPERATIONS, Outgoing, following, outgoing
from meshnode_bindings_http._response import Answer, read_answer

__all__ = ["HttpBinding"]

_TRUE = ("y", "yes", "true", "t", "on", "1")
_CONNECTING = 15.0
"""Seconds for the connection and again for TLS, as in Dapr."""

_REDIRECTS = 10


@final
class HttpBinding:
    """An `OutputBinding`."""

    def __init__(self, options: Options, context: DriverContext, transport: httpx.AsyncHTTPTransport) -> None:
        self._options = options
        self._context = context
        self._transport = transport
        header, token = options.security_token_header, options.security_token
        self._token = (header, token) if header else None

    @property
    def operations(self) -> Sequence[str]:
        return OPERATIONS

    async def invoke(self, request: BindingRequest) -> BindingResult:
        options = self._options
        first = outgoing(options.url, self._token, request.operation, request.metadata, request.data)
        answer = await self._within_timeout(first)
        if answer.cut:
            most = options.max_response_body_size
            self._context.log.warning("%s: body cut off at %d bytes", self._context.component, most)
        told = request.metadata.get("errorIfNot2XX", "")
        strict = told.strip().lower() in _TRUE if told else options.error_if_not_2xx
        if strict and answer.status // 100 != 2:
            raise BindingError(f"received status code {answer.status}")
        return BindingResult(answer.body, answer.metadata)

    async def _within_timeout(self, request: Outgoing) -> Answer:
        timeout = self._options.response_timeout
        if timeout is None:
            return await self._answer(request)
        with trio.move_on_after(timeout.total_seconds()):
            return await self._answer(request)
        raise ComponentUnavailable(
            f"{_shown(request.url)} did not answer within {timeout.total_seconds():g} s"
        )

    async def _answer(self, request: Outgoing) -> Answer:
        """The final answer, redirects followed."""
        for _ in range(_REDIRECTS):
            try:
                answer, following_one = await self._exchange(request)
            except httpx.LocalProtocolError as error:
                raise InvalidArgument(f"this request cannot be sent: {error}") from error
            except httpx.UnsupportedProtocol as error:
                raise BindingError(str(error)) from error
            except (httpx.TransportError, OSError) as error:
                reason = str(error) or type(error).__name__
                raise ComponentUnavailable(f"{_shown(request.url)}: {reason}") from error
            except (zlib.error, EOFError) as error:
                raise BindingError(f"{_shown(request.url)}: {error}") from error
            if following_one is None:
                return answer
            request = following_one
        raise BindingError(f"stopped after {_REDIRECTS} redirects")

    async def _exchange(self, request: Outgoing) -> tuple[Answer, Outgoing | None]:
        """One request. The connection is used again unless part of the body was left in it."""
        headers = dict(request.headers)
        decode = "accept-encoding" not in headers and "range" not in headers and request.method != "HEAD"
        if decode:
            headers["accept-encoding"] = "gzip"
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        sent = httpx.Request(
            request.method,
            request.url,
            headers=encoded,
            content=request.body,
            extensions={"timeout": {"connect": _CONNECTING}},
        )
        response = await self._transport.handle_async_request(sent)
        try:
            most = self._options.max_response_body_size
            answer = await read_answer(response, most=most, decode=decode)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await response.aclose()
        return answer, following(request, answer.status, response.headers.get("location"))


def _shown(url: httpx.URL) -> str:
    """For messages: without user, password and query."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
