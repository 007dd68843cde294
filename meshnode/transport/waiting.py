"""How a task waits for a stream: it leaves itself as the stream's token, and the connection reschedules it.

Imports trio.
"""

from __future__ import annotations

from functools import partial

import trio
from trio.lowlevel import Abort, RaiseCancelT, current_task, wait_task_rescheduled

from meshnode.transport.h2stream import H2Stream

__all__ = ["until_readable", "until_writable"]


async def until_readable(stream: H2Stream) -> None:
    """Return when something came, or nothing will. May return early: look again."""
    if stream.reader is not None:
        raise trio.BusyResourceError("another task is already receiving from this call")
    stream.reader = current_task()
    await wait_task_rescheduled(partial(_stop_reading, stream))


async def until_writable(stream: H2Stream) -> None:
    """Return when the windows have grown, or never will. May return early: look again."""
    if stream.writer is not None:
        raise trio.BusyResourceError("another task is already sending on this call")
    stream.writer = current_task()
    await wait_task_rescheduled(partial(_stop_writing, stream))


def _stop_reading(stream: H2Stream, _: RaiseCancelT) -> Abort:
    stream.reader = None
    return Abort.SUCCEEDED


def _stop_writing(stream: H2Stream, _: RaiseCancelT) -> Abort:
    stream.writer = None
    return Abort.SUCCEEDED
