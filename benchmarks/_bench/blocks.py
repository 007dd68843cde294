"""Encoded request headers, made before the measurement.

Our channel encodes without dynamic table and without Huffman; most other clients use both, and each call
whose headers differ then changes the server's table. That is what a node gets from applications, so that is
what the client sends: blocks that depend on one another, in order, all on one connection.

Imports meshnode.transport (the codec) and `hpack` (the encoder).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from hpack import Encoder

from _bench.requests import Request, metadata

__all__ = ["header_blocks"]

# The channel puts a size update to zero in front of a connection's first block; this one lifts it again.
_TABLE_OF_4096 = b"\x3f\xe1\x1f"


def header_blocks(request: Request, authority: str, seed: int) -> Iterator[bytes]:
    """Blocks for one connection, to be sent in this order, none left out."""
    encoder = Encoder()
    base = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", request.path),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("user-agent", "meshnode-benchmark"),
        ("te", "trailers"),
    ]
    prefix = _TABLE_OF_4096
    for timeout, pairs in metadata(request, seed):
        block = prefix + encoder.encode([*base, ("grpc-timeout", f"{timeout}m"), *pairs])
        yield block
        if not request.varying and not prefix:
            yield from repeat(block)  # everything is in the table by now: the same bytes for ever
        prefix = b""
