"""A component's metadata as gRPC metadata: how Dapr hands on what a broker or a binding says of a message.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = ["metadata_headers"]

_NOT_SENT = frozenset(
    {"te", "content-type", "content-length", "user-agent", "host", "connection", "traceparent", "tracestate"}
    | {"dapr-api-token", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_MOST = 4096
_PAIR_OVERHEAD = 32
"""Octets of all pairs, counted as HTTP/2 counts them (RFC 9113, 6.5.2). gRPC servers refuse calls with more
than 8 KiB of metadata by default: an event that brings more than its share must come all the same.
"""


def metadata_headers(metadata: Mapping[str, str]) -> Iterator[tuple[bytes, bytes]]:
    """Header pairs; names and values that gRPC cannot carry, reserved ones and what is too much are left
    out.
    """
    room = _MOST
    for key, value in metadata.items():
        name = key.lower()
        if (
            not name
            or name in _NOT_SENT
            or name.startswith(("grpc-", "."))
            or name.endswith("-bin")
            or not _NAME.issuperset(name)
            or not (value.isascii() and value.isprintable())
        ):
            continue
        size = len(name) + len(value) + _PAIR_OVERHEAD
        if size > room:
            continue
        room -= size
        yield name.encode(), value.encode()
