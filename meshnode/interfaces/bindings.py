"""Bindings: the Protocols of both directions and their value types.

A driver yields an object that is an `OutputBinding`, an `InputBinding` or both; which of them a component
uses is its `direction`. Errors: `ComponentUnavailable` (worth a retry), `BindingError` for the rest,
`InvalidArgument` for a request that can never be right.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import trio
from attrs import field, frozen

from meshnode.interfaces.pubsub import Outcome

__all__ = ["BindingEvent", "BindingRequest", "BindingResult", "InputBinding", "OutputBinding", "Receive"]


@frozen
class BindingRequest:
    """One operation of an output binding; `operation` is one of the binding's `operations`."""

    operation: str
    data: bytes = b""
    metadata: Mapping[str, str] = field(factory=dict)


@frozen
class BindingResult:
    data: bytes = b""
    metadata: Mapping[str, str] = field(factory=dict)


@frozen
class BindingEvent:
    """Something that happened outside, for the application."""

    data: bytes = b""
    metadata: Mapping[str, str] = field(factory=dict)


Receive = Callable[[BindingEvent], Awaitable[Outcome]]
"""`ACK`: the application took the event. `RETRY`: it did not; the driver offers it again where the source is
able to, never in a hot loop.
"""


@runtime_checkable
class OutputBinding(Protocol):
    """What a driver yields whose backend can be asked for something."""

    @property
    def operations(self) -> Sequence[str]:
        """The names of its operations (`create`, `get`, …), as Dapr's components have them."""
        ...

    async def invoke(self, request: BindingRequest) -> BindingResult: ...


@runtime_checkable
class InputBinding(Protocol):
    """What a driver yields whose backend has something to tell."""

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        """Hand events to `receive` until `stop` is set or the call is cancelled; rules as for
        `PubSub.subscribe`.
        """
        ...
