"""What the checks of every kind share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import trio

from meshnode.errors import MeshError

__all__ = ["RUN", "ConformanceError", "bare", "expect", "refused", "within"]

# Names differ between runs too, so that a backend that outlives the run can be used again.
RUN: Final = os.urandom(6).hex()


class ConformanceError(AssertionError):
    """The driver breaks the contract of its kind."""


def expect(held: bool, what: str) -> None:
    """Raises `ConformanceError` unless it held. (A plain assert would vanish under `python -O`.)"""
    if not held:
        raise ConformanceError(what)


@contextmanager
def refused(error: type[MeshError], what: str) -> Iterator[None]:
    """The block must raise this error and no other."""
    try:
        yield
    except error:
        return
    except MeshError as other:
        raise ConformanceError(f"{what}: expected {error.__name__}, got {other!r}") from other
    raise ConformanceError(f"{what}: expected {error.__name__}, but it was accepted")


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """The block must end in time: generous, for it tells a hang from an answer and measures nothing."""
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise ConformanceError(f"{what} within {seconds:g} s") from None


@contextmanager
def bare() -> Iterator[None]:
    """Whatever the checks' nurseries have wrapped up comes out as the one error that matters: the first
    violation, or else the only error there is.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        _raise_what_matters(group)


def _raise_what_matters(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    leaves = list(_leaves(group))
    violations = [leaf for leaf in leaves if isinstance(leaf, ConformanceError)]
    if violations:
        raise violations[0] from violations[0].__cause__
    if len(leaves) == 1:
        raise leaves[0] from leaves[0].__cause__
    raise group


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
