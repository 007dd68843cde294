"""`grpc.reflection.v1.ServerReflection`: what a node serves, for grpcurl and its like, from the descriptors
of proto/.

Many tools, grpcio's own client among them, still ask by the name the service had before: v1alpha. Its
messages are the same, so it is the same handler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from grpclib.const import Status

from meshnode.api.service import Gate, Stream, bind
from meshnode.blocks.call import Call, LiveCalls
from meshnode.security.tokens import TokenCheck
from meshnode.wire import descriptors
from meshnode.wire.grpc.reflection import v1 as reflection

__all__ = ["Reflection"]

_PATH = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
_FORMER_PATH = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@final
class Reflection:
    """Answers for the services among `servables` and everything their messages are made of."""

    def __init__(self, servables: Sequence[Any]) -> None:
        paths = [path for one in servables for path in one.__mapping__()]
        self._services = sorted(
            {path.split("/")[1] for path in paths} | {"grpc.reflection.v1.ServerReflection"}
        )

    def handlers(self) -> Any:
        gate = Gate(LiveCalls(), TokenCheck(""))
        bound = bind(reflection.ServerReflectionBase(), {"ServerReflectionInfo": self._info}, gate)
        mapping = bound.__mapping__()
        mapping[_FORMER_PATH] = mapping[_PATH]
        return bound

    async def _info(self, _: None, stream: Stream, call: Call) -> None:
        async for request in stream:
            response = self._answer(request)
            response.valid_host = request.host
            response.original_request = request
            await stream.send_message(response)

    def _answer(self, request: reflection.ServerReflectionRequest) -> reflection.ServerReflectionResponse:
        if request.list_services is not None:
            listed = [reflection.ServiceResponse(name=name) for name in self._services]
            return reflection.ServerReflectionResponse(
                list_services_response=reflection.ListServiceResponse(service=listed)
            )
        if request.file_by_filename is not None:
            return _files(descriptors.file(request.file_by_filename), request.file_by_filename)
        if request.file_containing_symbol is not None:
            return _files(descriptors.file_of(request.file_containing_symbol), request.file_containing_symbol)
        # proto3 has no extensions: nothing extends anything here.
        wanted = request.all_extension_numbers_of_type or "extension"
        return _not_found(wanted)


def _files(files: list[bytes] | None, wanted: str) -> reflection.ServerReflectionResponse:
    if files is None:
        return _not_found(wanted)
    return reflection.ServerReflectionResponse(
        file_descriptor_response=reflection.FileDescriptorResponse(file_descriptor_proto=files)
    )


def _not_found(wanted: str) -> reflection.ServerReflectionResponse:
    error = reflection.ErrorResponse(
        error_code=Status.NOT_FOUND.value, error_message=f"{wanted} is not known here"
    )
    return reflection.ServerReflectionResponse(error_response=error)
