"""From a generated service base to the handlers that a server runs.

Everything that is the same for each method happens here, once: the API token, the live view of the request,
the API log. A method's implementation takes the decoded request, its stream (metadata, trailers, deadline)
and the `Call`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, final

from grpclib.const import Cardinality

from meshnode.blocks.call import Call, LiveCalls
from meshnode.security.access import ApiRules
from meshnode.security.tokens import TOKEN_HEADER, TokenCheck
from meshnode.transport import GRPCError, Handler, RawCall, Status
from meshnode.transport import Stream as TypedStream

__all__ = ["Gate", "Implementation", "Stream", "bind", "guarded"]

_TOKEN = TOKEN_HEADER.encode()
_log = logging.getLogger("meshnode.api")

Stream = TypedStream[Any, Any]
"""A request's stream; which messages it carries, `bind` knows and the type checker does not."""

Implementation = Callable[[Any, Stream, Call], Awaitable[Any]]
"""Takes (request, stream, call). A unary method returns its reply; a streaming one talks through the stream
and gets None as request.
"""


_Handle = Callable[[Any], Awaitable[None]]


class _Servable(Protocol):
    def __mapping__(self) -> dict[str, Handler]: ...


@final
class Gate:
    """What every call passes: the token check, the API's rules, the API log, the list of live calls."""

    def __init__(
        self,
        live: LiveCalls,
        tokens: TokenCheck,
        *,
        rules: ApiRules | None = None,
        api_logging: bool = False,
    ) -> None:
        self.live = live
        self._tokens = tokens
        self._rules = rules
        self._api_logging = api_logging

    def enter(self, method: str, stream: Stream | RawCall) -> Call:
        """Raises `Unauthorized`, or that the method may not be used. Give the `Call` back with `live.end`."""
        if self._tokens:
            self._tokens.check(stream.headers.get(_TOKEN))
        if self._rules:
            self._rules.check(method)
        if self._api_logging:
            agent = (stream.headers.get(b"user-agent") or b"").decode("utf-8", "replace")
            _log.info("gRPC API Called", extra={"fields": {"method": method, "useragent": agent}})
        return self.live.begin(method, stream.peer.address, stream.deadline)


@final
class _Bound:
    """An object with `__mapping__`, as servers take it."""

    def __init__(self, mapping: dict[str, Handler]) -> None:
        self._mapping = mapping

    def __mapping__(self) -> dict[str, Handler]:
        return self._mapping


def bind(base: _Servable, implementations: Mapping[str, Implementation], gate: Gate) -> _Bound:
    """Handlers for every method of a generated base.

    `implementations` are by method name (`SaveState`); a method without one gets behind the gate the
    generated handler, which answers UNIMPLEMENTED and names the block.
    """
    mapping: dict[str, Handler] = {}
    for path, handler in base.__mapping__().items():
        implementation = implementations.get(path.rpartition("/")[2])
        if implementation is not None:
            func: Any = _SHAPES[handler.cardinality](path, implementation, gate)
        else:
            func = _absent(path, handler.func, gate)
        mapping[path] = Handler(func, handler.cardinality, handler.request_type, handler.reply_type)
    return _Bound(mapping)


def _unary(path: str, implementation: Implementation, gate: Gate) -> Callable[[Stream], Awaitable[None]]:
    async def handle(stream: Stream) -> None:
        call = gate.enter(path, stream)
        try:
            reply = await implementation(await _only(stream), stream, call)
            if reply is not None:
                await stream.send_message(reply)
        finally:
            gate.live.end(call)

    return handle


def _server_streaming(
    path: str, implementation: Implementation, gate: Gate
) -> Callable[[Stream], Awaitable[None]]:
    async def handle(stream: Stream) -> None:
        call = gate.enter(path, stream)
        try:
            await implementation(await _only(stream), stream, call)
        finally:
            gate.live.end(call)

    return handle


def _streaming(path: str, implementation: Implementation, gate: Gate) -> Callable[[Stream], Awaitable[None]]:
    async def handle(stream: Stream) -> None:
        call = gate.enter(path, stream)
        try:
            await implementation(None, stream, call)
        finally:
            gate.live.end(call)

    return handle


async def _only(stream: Stream) -> Any:
    """The one request of a caller who sends one."""
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Status.INTERNAL, "the call ended without its request message")
    return request


def _absent(path: str, refuse: _Handle, gate: Gate) -> _Handle:
    async def handle(stream: Stream) -> None:
        call = gate.enter(path, stream)
        try:
            await refuse(stream)
        finally:
            gate.live.end(call)

    return handle


_SHAPES = {
    Cardinality.UNARY_UNARY: _unary,
    Cardinality.UNARY_STREAM: _server_streaming,
    Cardinality.STREAM_UNARY: _streaming,
    Cardinality.STREAM_STREAM: _streaming,
}


def guarded(
    implementation: Callable[[RawCall, Call], Awaitable[None]], gate: Gate
) -> Callable[[RawCall], Awaitable[None]]:
    """The same gate around a server's fallback, which proxies what no service of the node serves."""

    async def handle(raw: RawCall) -> None:
        call = gate.enter(raw.path, raw)
        try:
            await implementation(raw, call)
        finally:
            gate.live.end(call)

    return handle
