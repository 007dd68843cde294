"""One request to a provider: JSON there and JSON back.

It is made once: repeating is for the component's policy. A cancelled request closes its connection. Neither
the key nor what was said gets into a message; the provider's own words do, with the key taken out.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, final

import httpx
import trio

from meshnode.errors import ComponentUnavailable, ConversationError, InvalidArgument, Status

__all__ = ["JsonClient", "open_client"]

_CONNECTING = 15.0
_IDLE_CONNECTIONS = 32
_IDLE_SECONDS = 90.0
_MOST_BODY: Final = 16 << 20
_MOST_WORDS: Final = 500

_STATUSES: Final[Mapping[int, Status]] = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    402: Status.RESOURCE_EXHAUSTED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    408: Status.DEADLINE_EXCEEDED,
    409: Status.ABORTED,
    413: Status.INVALID_ARGUMENT,
    422: Status.INVALID_ARGUMENT,
    429: Status.RESOURCE_EXHAUSTED,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
    529: Status.UNAVAILABLE,  # Anthropic's word for too much traffic
}
"""What a provider's answer stands for; INTERNAL where nothing is said here."""


@final
class JsonClient:
    """Requests to one URL. `headers` may hold secrets, `secret` is what no message may show."""

    def __init__(
        self, transport: httpx.AsyncHTTPTransport, url: str, headers: Mapping[str, str], secret: str = ""
    ) -> None:
        self._transport = transport
        self._url = httpx.URL(url)
        self._headers = {"accept": "application/json", "content-type": "application/json", **headers}
        self._secret = secret

    async def ask(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer's JSON object. Raises `ComponentUnavailable` where nobody answers, `InvalidArgument` for
        what cannot be sent, `ConversationError` for every other failure.
        """
        try:
            content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        except (UnicodeEncodeError, ValueError) as error:
            raise InvalidArgument(f"this request cannot be sent: {error}") from None
        try:
            status, answer = await self._exchange(content)
        except httpx.LocalProtocolError as error:
            raise InvalidArgument(self._clean(f"this request cannot be sent: {error}")) from None
        except (httpx.TransportError, OSError) as error:
            reason = self._clean(str(error) or type(error).__name__)
            raise ComponentUnavailable(
                f"{self._host} cannot be reached: {reason}", status=Status.UNAVAILABLE
            ) from error
        if status // 100 != 2:
            raise self._refusal(status, answer)
        return self._parsed(answer)

    @property
    def _host(self) -> str:
        return self._url.netloc.decode("ascii", "replace")

    async def _exchange(self, content: bytes) -> tuple[int, bytes]:
        headers = {**self._headers, "host": self._host, "content-length": str(len(content))}
        sent = httpx.Request(
            "POST",
            self._url,
            headers=headers,
            content=content,
            extensions={"timeout": {"connect": _CONNECTING}},
        )
        response = await self._transport.handle_async_request(sent)
        try:
            return response.status_code, await _body(response)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await response.aclose()

    def _refusal(self, status: int, answer: bytes) -> ConversationError:
        words = self._clean(_words(answer))[:_MOST_WORDS]
        message = f"{self._host} answered {status}" + (f": {words}" if words else "")
        return ConversationError(message, status=_STATUSES.get(status, Status.INTERNAL))

    def _parsed(self, answer: bytes) -> Mapping[str, Any]:
        try:
            parsed = json.loads(answer)
        except (ValueError, RecursionError):
            raise ConversationError(f"{self._host} answered with what is no JSON") from None
        if not isinstance(parsed, dict):
            raise ConversationError(f"{self._host} answered with JSON that is no object")
        return parsed

    def _clean(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text


async def _body(response: httpx.Response) -> bytes:
    """Raises `ConversationError` beyond the limit. The rest of such an answer is not read: its connection
    ends with it.
    """
    body = bytearray()
    # Leaving the loop by a cancellation ends httpx's nested generators at once, as only an exception from
    # the innermost does.
    with trio.CancelScope() as scope:
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > _MOST_BODY:
                scope.cancel()
    if scope.cancel_called:
        raise ConversationError(f"an answer is longer than {_MOST_BODY} bytes")
    return bytes(body)


def _words(answer: bytes) -> str:
    """What a provider says of an error: `error.message` (OpenAI, Anthropic), `error` (Ollama), or a text."""
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        return answer.decode("utf-8", "replace").strip()
    found = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if isinstance(found, dict):
        found = found.get("message", "")
    return found if isinstance(found, str) else ""


@asynccontextmanager
async def open_client(url: str, headers: Mapping[str, str], secret: str = "") -> AsyncIterator[JsonClient]:
    """Connections are kept for the next request and closed on exit."""
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=_IDLE_CONNECTIONS,
        keepalive_expiry=_IDLE_SECONDS,
    )
    # Reads the system's authorities from files.
    transport = await trio.to_thread.run_sync(lambda: httpx.AsyncHTTPTransport(limits=limits))
    try:
        yield JsonClient(transport, url, headers, secret)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await transport.aclose()
