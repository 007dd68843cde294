"""Ticks at a fixed rate for the open loop.

Timeouts of epoll count whole milliseconds, which is coarse for a call every half of one; Linux's timerfd is
exact. The ticks do not wait for anybody: a reader that comes late learns how many it has missed.

Imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["elapsed_ticks", "ticking"]

_CLOCK_MONOTONIC = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


@contextmanager
def ticking(rate: float) -> Iterator[int]:
    """A file descriptor that becomes readable `rate` times a second. Linux only."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    try:
        seconds, fraction = divmod(1 / rate, 1)
        step = _TimeSpec(int(seconds), int(fraction * 1e9))
        if libc.timerfd_settime(descriptor, 0, ctypes.byref(_TimerSpec(step, step)), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        yield descriptor
    finally:
        os.close(descriptor)


def elapsed_ticks(descriptor: int) -> int:
    """Ticks since the last time this was asked."""
    try:
        return int.from_bytes(os.read(descriptor, 8), "little")
    except BlockingIOError:
        return 0
