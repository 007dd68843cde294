"""What a component's process answers with, in the terms of the interfaces.

An etag's fault is told from others as Dapr tells it: FAILED_PRECONDITION (stale) or INVALID_ARGUMENT (never
one of this store's) with a single detail, a BadRequest whose only violation is about the field `etag`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from meshnode.errors import ComponentError, ComponentUnavailable, EtagInvalid, EtagMismatch, StateError
from meshnode.pluggable.names import ETAG_FIELD
from meshnode.transport import GRPCError, Status
from meshnode.wire import DecodeError
from meshnode.wire.google import rpc

__all__ = ["error_of", "state_error_of", "translated"]

_ETAGS: dict[Status, type[StateError]] = {
    Status.FAILED_PRECONDITION: EtagMismatch,
    Status.INVALID_ARGUMENT: EtagInvalid,
}


def error_of(error: GRPCError, kind: type[ComponentError]) -> ComponentError:
    """UNKNOWN is what most components fail with: it says nothing, so it is the kind's own status."""
    message = error.message or error.status.name
    if error.status is Status.UNAVAILABLE:
        return ComponentUnavailable(message, status=Status.UNAVAILABLE)
    return kind(message, status=None if error.status is Status.UNKNOWN else error.status)


def state_error_of(error: GRPCError) -> ComponentError:
    etag = _ETAGS.get(error.status)
    description = None if etag is None else _etag_violation(error.details)
    if etag is None or description is None:
        return error_of(error, StateError)
    return etag(description or error.message or error.status.name)


@contextmanager
def translated(kind: type[ComponentError]) -> Iterator[None]:
    """Around calls of a kind without errors of its own."""
    try:
        yield
    except GRPCError as error:
        raise error_of(error, kind) from error


def _etag_violation(details: object) -> str | None:
    """The description of what is wrong with the etag; None where the details are about something else."""
    if not isinstance(details, bytes):
        return None
    try:
        packed = rpc.Status.parse(details).details
        if len(packed) != 1 or not packed[0].type_url.endswith("/google.rpc.BadRequest"):
            return None
        violations = rpc.BadRequest.parse(packed[0].value).field_violations
    except DecodeError:
        return None
    if len(violations) != 1 or violations[0].field != ETAG_FIELD:
        return None
    return violations[0].description
