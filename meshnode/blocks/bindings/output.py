"""InvokeBinding: one operation on an outside system, under the component's outbound policy."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import final

from meshnode.blocks.bindings.components import Binding
from meshnode.blocks.call import Call
from meshnode.blocks.scoped import scoped
from meshnode.errors import (
    CircuitOpen,
    ErrorInfoDetail,
    InvalidArgument,
    MeshError,
    ResourceInfoDetail,
    Status,
)
from meshnode.interfaces import BindingRequest, BindingResult
from meshnode.telemetry.tracecontext import next_traceparent
from meshnode.transport import HeaderBlock
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["OutputBindings"]

_TRACE = (b"traceparent", b"tracestate", b"baggage")
_NOT_PASSED = frozenset(
    {b"te", b"content-type", b"content-length", b"user-agent", b"host", b"connection", b"dapr-api-token"}
    | {b"accept-encoding", b"dapr-app-id"}
)


@final
class OutputBindings:
    """The output side of a node's bindings."""

    def __init__(self, bindings: Mapping[str, Binding], rng: random.Random) -> None:
        self._rng = rng
        self._bindings = bindings

    async def invoke(
        self, request: runtime.InvokeBindingRequest, headers: HeaderBlock, call: Call
    ) -> runtime.InvokeBindingResponse:
        metadata = _with_headers(request.metadata, headers)
        incoming = metadata.get("traceparent", "").encode("ascii", "replace")
        metadata["traceparent"] = next_traceparent(incoming or None, self._rng).decode()
        try:
            result = await self.send(
                request.name, BindingRequest(request.operation, request.data, metadata), call
            )
        except MeshError as error:
            raise _failed(request.name, error) from error
        return runtime.InvokeBindingResponse(data=result.data, metadata=dict(result.metadata))

    async def send(self, name: str, request: BindingRequest, call: Call) -> BindingResult:
        """Raises `InvalidArgument` for an operation or a binding that is not there."""
        if not request.operation:
            raise InvalidArgument("operation field is missing from request")
        binding = self._bindings.get(name)
        if binding is None or binding.output is None:
            raise InvalidArgument(f"couldn't find output binding {name}")
        operations = binding.output.operations
        if request.operation not in operations:
            known = " ".join(operations)
            what = f"binding {name} does not support operation {request.operation}"
            raise InvalidArgument(f"{what}. supported operations:{known}")
        return await scoped(binding.outbound, partial(binding.output.invoke, request), call)


def _with_headers(given: Mapping[str, str], headers: HeaderBlock) -> dict[str, str]:
    """The request's metadata, and behind it the call's own: as in Dapr a binding sees both, and the call's
    trace wins.
    """
    metadata = dict(given)
    for raw_name, raw_value in headers:
        if raw_name.startswith((b":", b"grpc-")) or raw_name in _NOT_PASSED or raw_name.endswith(b"-bin"):
            continue
        name = raw_name.decode("ascii")
        if name not in metadata or raw_name in _TRACE:
            metadata[name] = raw_value.decode("utf-8", "replace")
    return metadata


def _failed(name: str, error: MeshError) -> MeshError:
    if isinstance(error, CircuitOpen):
        return error
    message = f"error invoking output binding {name}: {error}"
    # INTERNAL whatever it was, as the reference answers; the words say it.
    return MeshError(
        message,
        ErrorInfoDetail("ERR_INVOKE_OUTPUT_BINDING"),
        ResourceInfoDetail("binding", name, description=message),
        status=Status.INTERNAL,
    )
