"""`Init`, which every kind has in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from meshnode.errors import ComponentError
from meshnode.interfaces import free_form
from meshnode.pluggable.client.connection import Session
from meshnode.pluggable.client.errors import translated
from meshnode.pluggable.names import ATTENTIVE
from meshnode.transport import Cardinality, GRPCError, Status
from meshnode.wire.dapr.proto.components import v1 as components

__all__ = ["Properties", "initialise"]

_NODES_OWN = frozenset({"primaryencryptionkey", "secondaryencryptionkey"})
"""Keys with which the node encrypts what the component stores: the component has no use for them."""


@frozen
class Properties:
    """The metadata of a component that has no declared options."""

    given: Mapping[str, str] = free_form("Passed on to the component.")

    @property
    def passed_on(self) -> dict[str, str]:
        return {name: value for name, value in self.given.items() if name.lower() not in _NODES_OWN}


async def initialise(
    session: Session, service: str, request_type: Any, reply_type: Any, properties: Mapping[str, str]
) -> bool:
    """Whether the process is `ATTENTIVE`. Raises `ComponentError`."""
    metadata = components.MetadataRequest(properties=dict(properties))
    call: Any = session.channel.request(
        f"/{service}/Init", Cardinality.UNARY_UNARY, request_type, reply_type, metadata=session.metadata
    )
    with translated(ComponentError):
        async with call as stream:
            await stream.send_message(request_type(metadata=metadata), end=True)
            if await stream.recv_message() is None:
                await stream.recv_trailing_metadata()
                raise GRPCError(Status.INTERNAL, "Init ended without its response message")
    return ATTENTIVE in (stream.initial_metadata or ())
