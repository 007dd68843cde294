"""What a call sends: its method, its message, and headers that differ from call to call as real ones do.

Imports attrs and the standard library only; both ends of the client's command line speak it as JSON.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from typing import Any

from attrs import asdict, field, frozen

__all__ = ["ECHO", "Request", "echo_request", "frame", "metadata"]

ECHO = "/bench.Echo/Echo"
Metadata = list[tuple[str, str]]


@frozen
class Request:
    """One kind of call."""

    path: str
    messages: list[bytes]
    """Sent in turn: calls may differ in what they ask for."""
    metadata: Metadata = field(factory=list)
    varying: bool = True
    """A new traceparent, deadline and request id in each call; otherwise all calls have the same headers."""
    reply_size: int | None = None
    """Bytes of the reply message; None: not checked."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"messages": [base64.b64encode(one).decode() for one in self.messages]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Request:
        pairs = [(name, text) for name, text in value["metadata"]]
        messages = [base64.b64decode(one) for one in value["messages"]]
        return cls(**(value | {"messages": messages, "metadata": pairs}))


def echo_request(size: int, *, varying: bool, metadata: Metadata | None = None) -> Request:
    """A call of the echo service with a message that does not compress by accident."""
    message = random.Random(size).randbytes(size)
    return Request(ECHO, [message], metadata or [], varying, size)


def frame(message: bytes) -> bytes:
    """A message with gRPC's length prefix."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def metadata(request: Request, seed: int) -> Iterator[tuple[int, Metadata]]:
    """For one call after the other: milliseconds of deadline and metadata.

    Varying calls carry what instrumented clients send: a trace context, a deadline that is what is left of
    the caller's own, and an id.
    """
    rng = random.Random(seed)
    while True:
        if not request.varying:
            yield (
                10_000,
                [*request.metadata, ("traceparent", f"00-{1:032x}-{2:016x}-01"), ("x-request-id", "1")],
            )
            continue
        trace, span, own = rng.getrandbits(128), rng.getrandbits(64), rng.getrandbits(48)
        own_pairs = [("traceparent", f"00-{trace:032x}-{span:016x}-01"), ("x-request-id", f"{own:012x}")]
        yield rng.randrange(9_000, 10_000), [*request.metadata, *own_pairs]
