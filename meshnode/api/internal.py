"""`dapr.proto.internals.v1.ServiceInvocation`: what other nodes, daprd among them, call on this one."""

from __future__ import annotations

from typing import Any, final

from meshnode.api.service import Gate, Implementation, Stream, bind
from meshnode.blocks.call import Call
from meshnode.blocks.invocation import Invocation
from meshnode.blocks.methodname import normalized
from meshnode.errors import InvalidArgument, MeshError, Status
from meshnode.security.access import AccessPolicy
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.internals import v1 as internals
from meshnode.wire.google import protobuf

__all__ = ["InternalApi"]

_CHUNK = 4096
"""Bytes of one StreamPayload, as daprd sends them."""


@final
class InternalApi:
    """`max_message` is what a request may come to, in one message or in chunks; `access` is asked first."""

    def __init__(self, invocation: Invocation, gate: Gate, *, max_message: int, access: AccessPolicy) -> None:
        self._invocation = invocation
        self._access = access
        self._gate = gate
        self._max_message = max_message

    def handlers(self) -> Any:
        implementations: dict[str, Implementation] = {
            "CallLocal": self._call_local,
            "CallLocalStream": self._call_local_stream,
        }
        return bind(internals.ServiceInvocationBase(), implementations, self._gate)

    async def _call_local(
        self, request: internals.InternalInvokeRequest, stream: Stream, call: Call
    ) -> internals.InternalInvokeResponse:
        return await self._invoke(request, call)

    async def _call_local_stream(self, _: None, stream: Stream, call: Call) -> None:
        """CallLocal with the payloads in chunks: the first message carries the request, the rest only data,
        in order of `seq`.
        """
        request, data = await _collect(stream, self._max_message)
        inner = request.message
        if inner is None:
            raise InvalidArgument("the request of CallLocalStream carries no message")
        inner.data = protobuf.Any(type_url=inner.data.type_url if inner.data else "", value=data)
        response = await self._invoke(request, call)
        payload = b""
        if response.message is not None and response.message.data is not None:
            payload = response.message.data.value
            response.message.data.value = b""
        chunks = [
            common.StreamPayload(data=payload[at : at + _CHUNK], seq=seq)
            for seq, at in enumerate(range(0, len(payload), _CHUNK))
        ]
        first = chunks[0] if chunks else None
        await stream.send_message(internals.InternalInvokeResponseStream(response=response, payload=first))
        for chunk in chunks[1:]:
            await stream.send_message(internals.InternalInvokeResponseStream(payload=chunk))

    async def _invoke(
        self, request: internals.InternalInvokeRequest, call: Call
    ) -> internals.InternalInvokeResponse:
        if request.message is not None:
            request.message.method = normalized(request.message.method)
            self._access.check(request.message.method, _verb(request.message))
        try:
            return await self._invocation.call_application(request, call)
        except InvalidArgument:
            raise
        except MeshError as error:
            raise MeshError(
                f"error invoking app channel: {error}", *error.details, status=error.code
            ) from error


def _verb(message: common.InvokeRequest) -> str:
    extension = message.http_extension
    return str(extension.verb.name) if extension is not None else "NONE"


async def _collect(stream: Stream, limit: int) -> tuple[internals.InternalInvokeRequest, bytes]:
    """Raises `InvalidArgument` when the stream has no request or its chunks are out of order,
    RESOURCE_EXHAUSTED when they come to more than `limit` bytes.
    """
    request: internals.InternalInvokeRequest | None = None
    chunks: list[bytes] = []
    held = 0
    async for message in stream:
        if request is None:
            if message.request is None:
                raise InvalidArgument("the first message of CallLocalStream carries no request")
            request = message.request
        elif message.request is not None:
            raise InvalidArgument("only the first message of CallLocalStream may carry a request")
        if message.payload is not None:
            if message.payload.seq != len(chunks):
                raise InvalidArgument(
                    f"chunk {message.payload.seq} of CallLocalStream came where {len(chunks)} was due"
                )
            chunks.append(message.payload.data)
            held += len(message.payload.data)
            if held > limit:
                raise MeshError(
                    f"the chunks of CallLocalStream come to more than {limit} bytes",
                    status=Status.RESOURCE_EXHAUSTED,
                )
    if request is None:
        raise InvalidArgument("CallLocalStream ended without a request")
    return request, b"".join(chunks)
