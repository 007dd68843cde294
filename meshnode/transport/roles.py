"""What header blocks mean: they open requests on a server, and begin and end responses on a client.

The functions are the two roles of a `Connection`, which is what they work on.

Sans-io; imports the other sans-io modules, and connection for its type only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshnode.transport import fields, frames, rules
from meshnode.transport.derived import Derived, derive_request, derived
from meshnode.transport.exceptions import ConnectionFault, StreamFault
from meshnode.transport.frames import ErrorCode
from meshnode.transport.h2stream import H2Stream
from meshnode.transport.hpack import HeaderBlock, HeaderListTooLarge, HpackError

if TYPE_CHECKING:
    from meshnode.transport.connection import Connection

__all__ = ["client_block", "server_block"]

_INFORMATIONAL: Final = ord("1")  # the first digit of a 1xx status


def server_block(connection: Connection, flags: int, stream_id: int, encoded: bytes) -> None:
    """A header block from a client: a request, or its trailers."""
    block = _decode(connection, encoded)
    stream = connection.streams.get(stream_id)
    if stream is not None:
        _trailers(connection, stream, block, flags)
        return
    if stream_id <= connection.last_id or not stream_id & 1:
        connection.late(stream_id, "HEADERS")
        return
    stream = _open(connection, stream_id)
    if stream is None:
        return
    if block is None:
        raise _too_large(stream_id)
    known: Derived | None = block.cache
    if known is None:
        try:
            known = derive_request(block)
        except fields.MalformedHeaders as error:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, str(error)) from None
    stream.headers = block
    stream.content_left = known.content_length
    if flags & frames.END_STREAM:
        connection.end_remote(stream)
    connection.observer.request(stream)


def _open(connection: Connection, stream_id: int) -> H2Stream | None:
    """The stream that a request opens, unless it is not to be."""
    limits, skipped_from = connection.limits, connection.last_id + 2
    if stream_id > skipped_from:
        connection.history.skipped(skipped_from, stream_id - 2)
    connection.last_id = stream_id
    if stream_id > connection.accept_up_to:
        connection.history.reset(stream_id)  # as our GOAWAY said; what belongs to it may come all the same
        return None
    if len(connection.streams) >= limits.concurrent_streams:
        raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM, "too many streams")
    stream = H2Stream(stream_id, connection.outbound.peer.initial_window, limits.stream_window)
    connection.streams[stream_id] = stream
    return stream


def client_block(connection: Connection, flags: int, stream_id: int, encoded: bytes) -> None:
    """A header block from a server: a response, or its trailers."""
    block = _decode(connection, encoded)
    stream = connection.streams.get(stream_id)
    if stream is None:
        connection.late(stream_id, "HEADERS")
    elif stream.headers is not None or block is None:
        _trailers(connection, stream, block, flags)
    else:
        _response(connection, stream, block, flags)


def _response(connection: Connection, stream: H2Stream, block: HeaderBlock, flags: int) -> None:
    if block.verdict is not fields.check_response:
        try:
            fields.check_response(block)
        except fields.MalformedHeaders as error:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, str(error)) from None
        derived(block).foreign = not rules.is_grpc(block.get(b"content-type"))
    if block[0][1][0] == _INFORMATIONAL:  # the response is still to come
        if flags & frames.END_STREAM:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "informational response that ends")
        connection.control.pay_odd()
        return
    stream.headers = block
    if derived(block).foreign:
        stream.discarding = True  # an HTTP answer of something in between: its status is all that matters
    if flags & frames.END_STREAM:
        stream.trailers = block
        connection.end_remote(stream)
    else:
        connection.wake_reader(stream)


def _trailers(connection: Connection, stream: H2Stream, block: HeaderBlock | None, flags: int) -> None:
    if block is None:
        raise _too_large(stream.id)
    if stream.remote_ended:
        raise StreamFault(stream.id, ErrorCode.STREAM_CLOSED, "HEADERS after the end of the stream")
    if not flags & frames.END_STREAM:
        raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "trailers that do not end the stream")
    if block.verdict is not fields.check_trailers:
        try:
            fields.check_trailers(block)
        except fields.MalformedHeaders as error:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, str(error)) from None
    stream.trailers = block
    connection.end_remote(stream)


def _decode(connection: Connection, encoded: bytes) -> HeaderBlock | None:
    """None for a list that is too large: the table is in step, and only the stream has to end."""
    try:
        return connection.decoder.decode(encoded, connection.limits.header_list_size)
    except HpackError as error:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(error)) from None
    except HeaderListTooLarge:
        return None


def _too_large(stream_id: int) -> StreamFault:
    return StreamFault(stream_id, ErrorCode.ENHANCE_YOUR_CALM, "header list too large")
