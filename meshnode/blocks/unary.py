"""One typed unary call over a channel's raw interface: what the node itself asks of other nodes and of its
application.

It differs from the generated stubs in that it keeps what a node has to pass on: raw header and trailer
pairs, and the encoded `google.rpc.Status` of a failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol, Self, TypeVar

from attrs import frozen
from grpclib.const import Status

from meshnode.transport import Channel, Deadline, GRPCError, rules
from meshnode.transport.messages import frame

__all__ = ["Answer", "Encodable", "call_unary", "decoded", "request_headers"]

Pair = tuple[bytes, bytes]


class Encodable(Protocol):
    def __bytes__(self) -> bytes: ...


class _Parsed(Protocol):
    @classmethod
    def parse(cls, data: bytes) -> Self: ...


P = TypeVar("P", bound=_Parsed)


@frozen
class Answer:
    """How a call ended: `error` is None for OK; `message` is the encoded reply. Header and trailer pairs are
    as received.
    """

    error: GRPCError | None
    message: bytes | None
    headers: Sequence[Pair]
    trailers: Sequence[Pair]


def request_headers(
    path: bytes, authority: bytes, deadline: Deadline | None, extra: Iterable[Pair] = ()
) -> list[Pair]:
    """The header list of a gRPC request, in the order the specification asks for."""
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", authority),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    if deadline is not None:
        headers.append((b"grpc-timeout", rules.format_timeout(deadline.time_remaining())))
    headers.extend(extra)
    return headers


async def call_unary(
    channel: Channel, path: bytes, request: Encodable, deadline: Deadline | None, extra: Sequence[Pair] = ()
) -> Answer:
    """Make the call. Raises `ConnectionLost` when no answer came; a failure that the other side answered is
    an `Answer`.
    """
    headers = partial(request_headers, path, channel.authority.encode(), deadline, extra)
    response = await channel.unary_raw(headers, frame(bytes(request)))
    error = rules.result_of(response.trailers)
    if error is not None or response.frame is None:
        error = error or GRPCError(Status.INTERNAL, "the call ended without a reply message")
        return Answer(error, None, response.headers, response.trailers)
    return Answer(None, response.frame[5:], response.headers, response.trailers)


def decoded(kind: type[P], data: bytes | None, sender: str) -> P:
    """A reply's message. Raises `GRPCError` INTERNAL for bytes that are none."""
    try:
        return kind.parse(data or b"")
    except ValueError as error:
        raise GRPCError(Status.INTERNAL, f"{sender} sent a malformed message: {error}") from error
