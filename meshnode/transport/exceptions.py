"""What can go wrong in the transport.

`GRPCError` (grpclib's, so that code written for grpclib catches it) is what callers see; `ConnectionLost` is
the one that also tells whether the request can have reached a handler. The faults are internal: they say how
the sans-io connection answers a peer that breaks the protocol.

Imports frames and rules for the error codes.
"""

from __future__ import annotations

from typing import Final, final

from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError

from meshnode.transport.frames import ErrorCode
from meshnode.transport.rules import status_of_reset

__all__ = ["ConnectionFault", "ConnectionLost", "GRPCError", "ProtocolError", "StreamFault", "reset_error"]

_KNOWN_CODES: Final = frozenset(ErrorCode)


@final
class ConnectionLost(GRPCError):
    """UNAVAILABLE because of the connection, not because the handler said so.

    `sent` is False if the request surely never reached a handler, so that repeating it is safe whatever it
    does.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(Status.UNAVAILABLE, message)
        self.sent = sent


@final
class ConnectionFault(Exception):
    """The peer broke the connection's rules: GOAWAY with this code, then close."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@final
class StreamFault(Exception):
    """The peer broke a stream's rules: RST_STREAM with this code; other streams go on."""

    def __init__(self, stream_id: int, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.stream_id = stream_id
        self.code = code
        self.message = message


def reset_error(code: int) -> GRPCError:
    """What a call that the server reset ends with."""
    if code == ErrorCode.REFUSED_STREAM:
        return ConnectionLost("the server refused the stream", sent=False)
    name = ErrorCode(code).name if code in _KNOWN_CODES else f"error code {code}"
    return GRPCError(status_of_reset(code), f"stream reset by the server: {name}")
