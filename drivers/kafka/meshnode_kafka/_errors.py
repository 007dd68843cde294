"""aiokafka's errors as ours, and the way over to its side."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import trio_asyncio
from aiokafka import errors as kafka  # type: ignore[import-untyped]

from meshnode.errors import ComponentError, ComponentUnavailable, Status

__all__ = ["TROUBLE", "on_asyncio", "translated"]

P = ParamSpec("P")
T = TypeVar("T")

TROUBLE = (kafka.KafkaError, OSError, TimeoutError)
"""What aiokafka raises."""

_PASSING = (
    kafka.KafkaConnectionError,
    kafka.KafkaTimeoutError,
    kafka.NodeNotReadyError,
    kafka.RequestTimedOutError,
    OSError,
    TimeoutError,
)
_STATUS: tuple[tuple[type[Exception], Status], ...] = (
    (kafka.TopicAuthorizationFailedError, Status.PERMISSION_DENIED),
    (kafka.GroupAuthorizationFailedError, Status.PERMISSION_DENIED),
    (kafka.ClusterAuthorizationFailedError, Status.PERMISSION_DENIED),
    (kafka.MessageSizeTooLargeError, Status.INVALID_ARGUMENT),
    (kafka.RecordListTooLargeError, Status.INVALID_ARGUMENT),
    (kafka.UnknownTopicOrPartitionError, Status.NOT_FOUND),
)


async def on_asyncio(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs the function on the asyncio side until it returns; cancelling this cancels it, and waits."""
    result: T = await trio_asyncio.aio_as_trio(function)(*args, **kwargs)  # type: ignore[attr-defined,no-untyped-call]
    return result


def translated(error: Exception, brokers: str, kind: type[ComponentError], note: str = "") -> ComponentError:
    """`kind` is for what will not pass by itself."""
    text = f"kafka at {brokers}: {_words(error)}{note}"
    status = next((status for cause, status in _STATUS if isinstance(error, cause)), None)
    if status is not None:
        return kind(text, status=status)
    if isinstance(error, _PASSING) or getattr(error, "retriable", False):
        return ComponentUnavailable(text)
    return kind(text)


def _words(error: Exception) -> str:
    """Without aiokafka's `[Error 3] ` in front; what the error means where it says no more than its name."""
    name = type(error).__name__
    text = re.sub(r"^\[Error -?\d+\] ", "", str(error)) or name
    if text != name:
        return text
    meaning = " ".join((getattr(error, "description", "") or "").split()).rstrip(".")
    return f"{name}: {meaning}" if meaning else name
