"""What is derived from a header block once and kept on it, in `HeaderBlock.cache`.

The decoder hands out the same block object for the same bytes, so a client that repeats its headers pays for
this once. For headers that vary per call everything here is lazy: nothing is worked out that nobody asks for.

Sans-io; imports hpack, rules and frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from meshnode.transport import rules
from meshnode.transport.frames import WireHeaders, wire_headers
from meshnode.transport.hpack import HeaderBlock, Pair, encode

__all__ = ["Derived", "derived", "encoded", "wire"]

_UNSET: Final[Any] = object()


@final
class Derived:
    """Derived values of one block."""

    __slots__ = ("_timeout", "block", "handler", "head", "memo", "path", "tail")

    def __init__(self) -> None:
        self.block: bytes | None = None  # encoded
        self.head: WireHeaders | None = None  # encoded and framed, more follows
        self.tail: WireHeaders | None = None  # the same, ending the stream
        self.path: str | None = None
        self.handler: Any = None  # what the server does with such a request
        self.memo: Any = None
        """For whoever handles the request: what it wants to keep with these headers."""
        self._timeout: Any = _UNSET

    def timeout(self, headers: HeaderBlock) -> float | None:
        """`grpc-timeout` in seconds; GRPCError if it is malformed."""
        found = self._timeout
        if found is _UNSET:
            raw = headers.get(b"grpc-timeout")
            try:
                found = None if raw is None else rules.parse_timeout(raw)
            except ValueError as error:
                raise GRPCError(Status.INTERNAL, str(error)) from None
            self._timeout = found
        return found  # type: ignore[no-any-return]


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
