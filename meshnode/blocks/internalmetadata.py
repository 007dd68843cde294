"""Metadata between the two forms it has on its way through `dapr.proto.internals.v1`: HTTP/2 header pairs
and a map of string lists.

Inside the map binary values (`-bin` keys) are standard base64 text. Pure functions; the lists of names are
gRPC's and Dapr's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping

from meshnode.wire.dapr.proto.internals import v1 as internals

__all__ = ["CALLEE", "CALLER", "from_internal", "to_internal"]

CALLER = "dapr-caller-app-id"
CALLEE = "dapr-callee-app-id"

# Not the caller's to pass on: HTTP/2 and gRPC put their own on each hop (an answer of trailers alone has the
# status among its headers, and it travels in a field of its own), and a node's API token is between it and
# its application.
_NOT_SENT = frozenset(
    {"te", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "accept-encoding", "connection"}
    | {"dapr-api-token", "grpc-status", "grpc-message", "grpc-status-details-bin"}
)
_NOT_RECEIVED = (
    _NOT_SENT
    | {"content-type", "content-length", "user-agent", "host", "destination-app-id"}
    | {"keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)


def to_internal(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, internals.ListStringValue]:
    """Header pairs as they came off the wire -> the map that travels inside InternalInvokeRequest or
    -Response.
    """
    found: dict[str, internals.ListStringValue] = {}
    for raw_name, raw_value in pairs:
        name = raw_name.decode("ascii")
        if name.startswith(":") or name in _NOT_SENT:
            continue
        value = raw_value.decode("utf-8", "replace")
        # On the wire padding may be missing and several values may be joined by commas; in the map it is
        # plain padded base64.
        values = [_padded(part) for part in value.split(",")] if name.endswith("-bin") else [value]
        known = found.get(name)
        if known is None:
            found[name] = internals.ListStringValue(values=values)
        else:
            known.values.extend(values)
    return found


def from_internal(metadata: Mapping[str, internals.ListStringValue]) -> Iterator[tuple[bytes, bytes]]:
    """The map -> header pairs that may be sent. Names are lowered; what gRPC reserves is left out."""
    for key, listed in metadata.items():
        name = key.lower()
        if name.startswith((":", "grpc-")) and name != "grpc-trace-bin":
            continue
        if name in _NOT_RECEIVED:
            continue
        raw_name = name.encode("ascii", "replace")
        for value in listed.values:
            if name.endswith("-bin"):
                try:
                    value = base64.b64encode(base64.b64decode(value, validate=True)).decode().rstrip("=")
                except binascii.Error:
                    continue
            yield raw_name, value.encode("utf-8")


def _padded(text: str) -> str:
    return text.strip() + "=" * (-len(text.strip()) % 4)
