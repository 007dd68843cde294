"""A method of a component's service: found by name in the generated base, run on the caller's instance, its
errors turned into the statuses that a daprd understands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from meshnode.api.service import Gate, Stream, bind
from meshnode.blocks.call import Call, LiveCalls
from meshnode.errors import (
    BadRequestDetail,
    BulkStateError,
    ComponentUnavailable,
    EtagInvalid,
    EtagMismatch,
    MeshError,
    NotImplementedHere,
    Status,
)
from meshnode.pluggable.names import ATTENTIVE, ETAG_FIELD, INSTANCE
from meshnode.pluggable.server.instances import Instance, Instances
from meshnode.security.tokens import TokenCheck

__all__ = ["Control", "Method", "StreamMethod", "on_the_wire", "requires", "service"]

Method = Callable[[Any, Any], Awaitable[Any]]
"""Takes (what the driver's `open` yielded, request) and returns the response."""

StreamMethod = Callable[[Instance, Stream], Awaitable[None]]

Control = Callable[[Instance], Any]
"""Does something to the instance itself, at once, and returns the response."""

_UNNAMED = ""


def service(
    base: Any,
    instances: Instances,
    init_response: Callable[[], Any],
    methods: Mapping[str, Method],
    streams: Mapping[str, StreamMethod] | None = None,
    controls: Mapping[str, Control] | None = None,
) -> Any:
    """Handlers for a generated base. `Init` is the same for all that have one; the others are by method
    name, and what is in none of these is UNIMPLEMENTED.
    """
    bound: dict[str, Any] = {name: partial(_unary, instances, method) for name, method in methods.items()}
    bound |= {name: partial(_streaming, instances, method) for name, method in (streams or {}).items()}
    bound |= {name: partial(_control, instances, control) for name, control in (controls or {}).items()}
    bound["Init"] = partial(_init, instances, init_response)
    return bind(base, bound, Gate(LiveCalls(), TokenCheck("")))


async def _init(
    instances: Instances, response: Callable[[], Any], request: Any, stream: Stream, _call: Call
) -> Any:
    metadata = request.metadata
    with on_the_wire():
        await instances.init(_name(stream), {} if metadata is None else metadata.properties)
    await stream.send_initial_metadata(metadata={ATTENTIVE: "true"})
    return response()


async def _unary(instances: Instances, method: Method, request: Any, stream: Stream, _call: Call) -> Any:
    instance = instances.get(_name(stream))
    with instance.used(), on_the_wire():
        return await method(instance.served, request)


async def _control(instances: Instances, control: Control, _request: Any, stream: Stream, _call: Call) -> Any:
    return control(instances.get(_name(stream)))


async def _streaming(
    instances: Instances, method: StreamMethod, _request: None, stream: Stream, _call: Call
) -> None:
    instance = instances.get(_name(stream))
    with instance.streaming(), on_the_wire():
        await method(instance, stream)


def _name(stream: Stream) -> str:
    return str(stream.metadata.get(INSTANCE, _UNNAMED))


@contextmanager
def on_the_wire() -> Iterator[None]:
    """The driver's errors as statuses, also out of the nursery of a stream."""
    try:
        yield
    except (MeshError, ExceptionGroup) as error:
        alone: Exception = error
        while isinstance(alone, ExceptionGroup) and len(alone.exceptions) == 1:
            alone = alone.exceptions[0]
        if not isinstance(alone, MeshError):
            raise
        raise _as_status(alone) from alone


def _as_status(error: MeshError) -> MeshError:
    if isinstance(error, BulkStateError):
        etags = [one for one in error.failures.values() if isinstance(one, EtagMismatch | EtagInvalid)]
        error = etags[0] if etags else error
    message = str(error)
    if isinstance(error, EtagMismatch):
        return MeshError(message, _about_etag(message), status=Status.FAILED_PRECONDITION)
    if isinstance(error, EtagInvalid):
        return MeshError(message, _about_etag(message), status=Status.INVALID_ARGUMENT)
    if isinstance(error, ComponentUnavailable):
        return MeshError(message, status=Status.UNAVAILABLE)
    return MeshError(message, status=error.code)


def _about_etag(description: str) -> BadRequestDetail:
    return BadRequestDetail([(ETAG_FIELD, description)])


def requires(held: bool, what: str) -> None:
    """Raises UNIMPLEMENTED for a service that the driver at hand cannot offer."""
    if not held:
        raise NotImplementedHere(f"this component has no {what}")
