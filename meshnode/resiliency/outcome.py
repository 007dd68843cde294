"""What an attempt's error means: its gRPC code, whether to try again, what it says about the target.

Pure. May import `meshnode.errors`, and of grpclib and trio the error classes.
"""

from __future__ import annotations

import enum

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from trio import TooSlowError

from meshnode.errors import (
    CircuitOpen,
    ComponentError,
    ConfigError,
    EtagInvalid,
    EtagMismatch,
    InvalidArgument,
    MeshError,
    NotImplementedHere,
)

__all__ = [
    "AttemptTimeout",
    "Stopped",
    "Verdict",
    "code_of",
    "is_permanent",
    "matches",
    "message_of",
    "unwrap",
    "verdict_of",
]


class AttemptTimeout(MeshError):
    """An attempt ran into its timeout policy. The attempt has ended when this is raised."""

    status = Status.DEADLINE_EXCEEDED

    def __init__(self) -> None:
        super().__init__("context deadline exceeded")  # what callers of Dapr read


class Stopped(MeshError):
    """A policy would have gone on, but whoever runs it is to end."""

    status = Status.UNAVAILABLE


class Verdict(enum.Enum):
    """What a breaker learns from an attempt."""

    HEALTHY = "healthy"
    FAILED = "failed"
    NOTHING = "nothing"


# The target answered these from what it has stored: a good sign. (Dapr counts them as failures, so that
# callers who compete for a key can open the breaker of a healthy store.)
_HEALTHY = (EtagMismatch,)
# The request was refused for what it is, perhaps before it reached the target: no sign at all.
_MISTAKES = (EtagInvalid, InvalidArgument, NotImplementedHere, ConfigError)
_PERMANENT = (*_HEALTHY, *_MISTAKES)


def unwrap(error: Exception) -> Exception:
    """The error inside groups of one, which is how a lone error leaves a nursery."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def code_of(error: Exception) -> Status:
    """The gRPC status that a caller sees for `error`."""
    error = unwrap(error)
    if isinstance(error, MeshError):
        return error.code
    if isinstance(error, GRPCError):
        return error.status
    if isinstance(error, (TimeoutError, TooSlowError)):
        return Status.DEADLINE_EXCEEDED
    return Status.INTERNAL


def message_of(error: Exception) -> str:
    """The text that a caller sees for `error`."""
    error = unwrap(error)
    if isinstance(error, GRPCError):
        return error.message or error.status.name
    return str(error) or type(error).__name__


def is_permanent(error: Exception) -> bool:
    """Whether the same request must meet the same answer."""
    return isinstance(error, _PERMANENT)


def matches(codes: frozenset[int] | None, error: Exception) -> bool:
    """Whether a policy's `matching` lets `error` be retried.

    It speaks of answers to calls. A component's own failure has no gRPC code of its own making, so there,
    as in Dapr, `matching` does not apply.
    """
    if codes is None or isinstance(error, ComponentError):
        return True
    return code_of(error).value in codes


def verdict_of(error: Exception) -> Verdict:
    if isinstance(error, _HEALTHY):
        return Verdict.HEALTHY
    if isinstance(error, (*_MISTAKES, CircuitOpen)):  # another breaker's refusal never reached the target
        return Verdict.NOTHING
    return Verdict.FAILED
