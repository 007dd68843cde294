"""What is derived from a header block once and kept on it, in `HeaderBlock.cache`.

The decoder hands out the same block object for the same bytes, so a client that repeats its headers pays for
this once. For headers that vary per call everything here is lazy: nothing is worked out that nobody asks for.

Sans-io; imports hpack, rules, fields and frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from meshnode.transport import fields, rules
from meshnode.transport.frames import WireHeaders, wire_headers
from meshnode.transport.hpack import HeaderBlock, Pair, encode

__all__ = ["Derived", "derive_request", "derived", "encoded", "wire"]


@final
class Derived:
    """Derived values of one block."""

    __slots__ = (
        "_timeout",
        "block",
        "content_length",
        "encoding",
        "foreign",
        "handler",
        "head",
        "memo",
        "path",
        "tail",
        "timeout_field",
    )

    def __init__(self) -> None:
        self.block: bytes | None = None  # encoded
        self.head: WireHeaders | None = None  # encoded and framed, more follows
        self.tail: WireHeaders | None = None  # the same, ending the stream
        self.path: str | None = None
        self.handler: Any = None  # what the server does with such a request
        self.memo: Any = None
        """For whoever handles the request: what it wants to keep with these headers."""
        self.foreign = False  # a response that is not gRPC's
        self.content_length = -1
        self.encoding: bytes | None = None
        self.timeout_field: bytes | None = None
        self._timeout: float | None = None

    @property
    def timeout(self) -> float | None:
        """`grpc-timeout` in seconds; GRPCError if it is malformed."""
        field = self.timeout_field
        if self._timeout is None and field is not None:
            try:
                self._timeout = rules.parse_timeout(field)
            except ValueError as error:
                raise GRPCError(Status.INTERNAL, str(error)) from None
        return self._timeout


def derive_request(block: HeaderBlock) -> Derived:
    """The values of a block that opens a request; MalformedHeaders if it cannot do that."""
    fields.check_request(block)
    found = block.cache = Derived()
    get = block.map.get
    if b"content-length" in block.map:
        found.content_length = fields.content_length(block) or 0
    found.encoding = get(b"grpc-encoding")
    found.timeout_field = get(b"grpc-timeout")
    return found


def derived(block: HeaderBlock) -> Derived:
    """The values kept on a block."""
    cache = block.cache
    if cache is None:
        cache = block.cache = Derived()
    return cache  # type: ignore[no-any-return]


def encoded(pairs: Iterable[Pair]) -> bytes:
    """Pairs as an HPACK block, kept if they are a HeaderBlock."""
    if type(pairs) is not HeaderBlock:
        return encode(pairs)
    cache = derived(pairs)
    if cache.block is None:
        cache.block = encode(pairs)
    return cache.block


def wire(pairs: Iterable[Pair], *, end: bool) -> WireHeaders:
    """Pairs as a framed block, kept if they are a HeaderBlock."""
    if type(pairs) is not HeaderBlock:
        return wire_headers(encode(pairs), end=end)
    cache: Derived = pairs.cache or derived(pairs)
    if end:
        if cache.tail is None:
            cache.tail = wire_headers(encoded(pairs), end=True)
        return cache.tail
    if cache.head is None:
        cache.head = wire_headers(encoded(pairs), end=False)
    return cache.head
