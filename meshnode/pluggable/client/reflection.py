"""Which services a server has, by its own word: gRPC server reflection, in either of its two names."""

from __future__ import annotations

from typing import Any

from meshnode.transport import Cardinality, Channel, GRPCError, Status
from meshnode.wire.grpc.reflection import v1 as reflection

__all__ = ["services_of"]

_METHOD = "ServerReflection/ServerReflectionInfo"
_PATHS = (f"/grpc.reflection.v1.{_METHOD}", f"/grpc.reflection.v1alpha.{_METHOD}")


async def services_of(channel: Channel) -> frozenset[str]:
    """Raises `GRPCError`, UNIMPLEMENTED for a server without reflection."""
    for path in _PATHS[:-1]:
        try:
            return await _ask(channel, path)
        except GRPCError as error:
            if error.status is not Status.UNIMPLEMENTED:
                raise
    return await _ask(channel, _PATHS[-1])


async def _ask(channel: Channel, path: str) -> frozenset[str]:
    call: Any = channel.request(
        path,
        Cardinality.STREAM_STREAM,
        reflection.ServerReflectionRequest,
        reflection.ServerReflectionResponse,
    )
    async with call as stream:
        await stream.send_message(reflection.ServerReflectionRequest(list_services=""), end=True)
        answer: reflection.ServerReflectionResponse | None = await stream.recv_message()
    if answer is None or answer.list_services_response is None:
        raise GRPCError(Status.INTERNAL, "reflection lists no services")
    return frozenset(one.name for one in answer.list_services_response.service)
