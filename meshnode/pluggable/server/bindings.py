"""A binding, served.

Nodes that name no direction use every one that is offered, and a driver says only by what it opens which it
has. So both are offered, and the one that is lacking has nothing to tell and no operations.
"""

from __future__ import annotations

from typing import Any

from meshnode.api.service import Stream
from meshnode.interfaces import BindingEvent, BindingRequest, InputBinding, Outcome, OutputBinding
from meshnode.pluggable.names import ATTENTIVE
from meshnode.pluggable.server.instances import Instance, Instances
from meshnode.pluggable.server.method import requires, service
from meshnode.pluggable.server.pulling import pull
from meshnode.wire.dapr.proto.components import v1 as components

__all__ = ["binding_services"]


def binding_services(instances: Instances) -> list[Any]:
    outputs = {"Invoke": _invoke, "ListOperations": _list_operations, "Ping": _ping}
    return [
        service(
            components.InputBindingBase(),
            instances,
            components.InputBindingInitResponse,
            {"Ping": _ping},
            {"Read": _read},
        ),
        service(components.OutputBindingBase(), instances, components.OutputBindingInitResponse, outputs),
    ]


async def _ping(_binding: Any, _: Any) -> components.PingResponse:
    return components.PingResponse()


async def _list_operations(binding: Any, _: Any) -> components.ListOperationsResponse:
    operations = list(binding.operations) if isinstance(binding, OutputBinding) else []
    return components.ListOperationsResponse(operations=operations)


async def _invoke(binding: Any, request: components.InvokeRequest) -> components.InvokeResponse:
    requires(isinstance(binding, OutputBinding), "operations")
    result = await binding.invoke(BindingRequest(request.operation, request.data, request.metadata))
    return components.InvokeResponse(data=result.data, metadata=dict(result.metadata))


async def _read(instance: Instance, stream: Stream) -> None:
    binding = instance.served
    if isinstance(binding, InputBinding):
        await pull(instance, stream, binding.read, _message, _answer)
        return
    await stream.send_initial_metadata(metadata={ATTENTIVE: "true"})
    async for _ in stream:
        pass


def _message(event: BindingEvent, identifier: str) -> components.ReadResponse:
    return components.ReadResponse(data=event.data, metadata=dict(event.metadata), message_id=identifier)


def _answer(request: components.ReadRequest) -> tuple[str, Outcome]:
    return request.message_id, Outcome.ACK if request.response_error is None else Outcome.RETRY
