"""What goes wrong at the server or on the way there, in the node's words."""

from __future__ import annotations

from typing import final

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)

from meshnode.errors import ComponentError, ComponentUnavailable, StateError

__all__ = ["TROUBLE", "InDoubt", "translated"]

TROUBLE = (PyMongoError, BSONError, OSError, OverflowError)
"""What PyMongo raises."""

_PASSING = frozenset(
    {
        6, 7, 24, 50, 89, 91, 112, 189, 202, 225, 251, 262, 317, 9001, 10107, 11600, 11602, 13388, 13435,
        13436,
    }
)  # fmt: skip
"""Codes of a server that is not there, stops, is no primary, is late or gave way to another write."""


@final
class InDoubt(ComponentUnavailable):
    """Like its base, and the write may have been executed."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}; it may have been executed")


def translated(place: str, error: BaseException, *, writes: bool = False) -> ComponentError:
    text = f"mongodb at {place}: {_words(error)}"
    if isinstance(error, ServerSelectionTimeoutError):
        return ComponentUnavailable(text)
    if isinstance(error, WriteConcernError):
        return InDoubt(text)
    lost = isinstance(error, ConnectionFailure | AutoReconnect | OSError)
    late = isinstance(error, PyMongoError) and error.timeout
    if lost or late:
        return InDoubt(text) if writes else ComponentUnavailable(text)
    if isinstance(error, OperationFailure) and error.code in _PASSING:
        return ComponentUnavailable(text)
    return StateError(text)


def _words(error: BaseException) -> str:
    if isinstance(error, OperationFailure) and error.details is not None:
        return f"{error.details.get('errmsg', error)} ({error.code})"
    return str(error).partition(", Topology Description")[0] or type(error).__name__
