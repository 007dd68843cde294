"""The error tree.

Every error that may reach a caller is a `MeshError`: it knows its gRPC status and the `google.rpc` details
that travel with it (as plain values; `api/` encodes them). Reason codes and the domain are Dapr's, so that
clients that look at them keep working.

Imports nothing from meshnode. Drivers import this module and `meshnode.interfaces`, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from attrs import field, frozen
from grpclib.const import Status

__all__ = [
    "DOMAIN",
    "BadRequestDetail",
    "BindingError",
    "BulkPublishError",
    "BulkStateError",
    "CircuitOpen",
    "ComponentError",
    "ComponentUnavailable",
    "ConfigError",
    "ConfigurationError",
    "ConversationError",
    "ErrorInfoDetail",
    "EtagInvalid",
    "EtagMismatch",
    "InvalidArgument",
    "LockError",
    "MeshError",
    "NotImplementedHere",
    "Problem",
    "PubSubError",
    "ResourceInfoDetail",
    "StateError",
    "Status",
]

DOMAIN = "dapr.io"


@frozen
class ErrorInfoDetail:
    """google.rpc.ErrorInfo: a machine-readable reason within a domain."""

    reason: str
    metadata: Mapping[str, str] = field(factory=dict)
    domain: str = DOMAIN


@frozen
class ResourceInfoDetail:
    """google.rpc.ResourceInfo: which resource the error is about."""

    resource_type: str
    resource_name: str
    owner: str = ""
    description: str = ""


@frozen
class BadRequestDetail:
    """google.rpc.BadRequest with one violation per (field, description) pair."""

    violations: Sequence[tuple[str, str]]


Detail = ErrorInfoDetail | ResourceInfoDetail | BadRequestDetail


class MeshError(Exception):
    """An error with a gRPC status; the message is what the caller reads in `grpc-message`."""

    status: ClassVar[Status] = Status.INTERNAL

    def __init__(self, message: str, *details: Detail, status: Status | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: tuple[Detail, ...] = details
        self.code: Status = type(self).status if status is None else status

    def __str__(self) -> str:
        return self.message


class InvalidArgument(MeshError):
    """The request cannot be right, whatever the state of the system."""

    status = Status.INVALID_ARGUMENT


class NotImplementedHere(MeshError):
    """A part of the API that this node does not offer; the message names the block."""

    status = Status.UNIMPLEMENTED


class CircuitOpen(MeshError):
    """A circuit breaker refused the attempt. Dapr answers UNKNOWN `circuit breaker is open`."""

    status = Status.UNKNOWN


class ComponentError(MeshError):
    """A component (driver) failed; resiliency may retry it."""


class ComponentUnavailable(ComponentError):
    """The backend behind a component cannot be reached."""


class StateError(ComponentError):
    """A state store refused or failed an operation."""


class EtagMismatch(StateError):
    """The stored etag differs from the one given, or a first-write found a value. Never retried."""

    status = Status.ABORTED


class EtagInvalid(StateError):
    """The etag given can never be one of this store's. Never retried."""

    status = Status.INVALID_ARGUMENT


class BulkStateError(StateError):
    """Some items of a bulk write failed: `failures` maps their positions in the request to what went wrong
    with each.
    """

    def __init__(self, failures: Mapping[int, StateError]) -> None:
        super().__init__("; ".join(dict.fromkeys(str(error) for error in failures.values())))
        self.failures: Mapping[int, StateError] = dict(failures)


class PubSubError(ComponentError):
    """A broker refused or failed a publication or a subscription."""


class BulkPublishError(PubSubError):
    """Some messages of a bulk publication were not taken: `failures` maps their positions in the request to
    what went wrong with each.
    """

    def __init__(self, failures: Mapping[int, Exception]) -> None:
        super().__init__("; ".join(dict.fromkeys(str(error) for error in failures.values())))
        self.failures: Mapping[int, Exception] = dict(failures)


class BindingError(ComponentError):
    """A binding refused or failed an operation."""


class ConfigurationError(ComponentError):
    """A configuration store refused or failed an operation."""


class LockError(ComponentError):
    """A lock store refused or failed an operation."""


class ConversationError(ComponentError):
    """A language model refused or failed a request; the status is what its answer stands for."""


@frozen
class Problem:
    """One mistake in a resource file: where it is, what was found and what to do about it."""

    message: str
    file: str = ""
    line: int = 0
    field: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        name = f"{self.field}: " if self.field else ""
        tail = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{name}{self.message}{tail}"


class ConfigError(MeshError):
    """Resource files or flags that cannot be used; carries every problem found, not only the first.

    `partial` is what could be read all the same, for whoever wants to go on looking for mistakes in it.
    """

    status = Status.INVALID_ARGUMENT

    def __init__(self, problems: Sequence[Problem], partial: Any = None) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.partial = partial
        self.problems: tuple[Problem, ...] = tuple(problems)
