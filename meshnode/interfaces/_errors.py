"""What drivers do with errors that come from below them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["lone_error", "reason_of"]

_LAYERS = 8


@contextmanager
def lone_error() -> Iterator[None]:
    """Around a nursery whose tasks raise nothing, or one error at a time: what comes out of it is the
    caller's own error, without the group around it.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__


def reason_of(error: BaseException) -> str:
    """The words of an error, or of the first one below it that has any: libraries (httpx under TLS) raise
    errors that say nothing of what went wrong.
    """
    found: BaseException | None = error
    for _ in range(_LAYERS):
        if found is None:
            break
        if str(found):
            return str(found)
        found = found.__cause__ or found.__context__
    return type(error).__name__
