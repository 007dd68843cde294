"""Exit codes of every command. They are stable: scripts may rely on them."""

from __future__ import annotations

import enum

__all__ = ["ExitCode"]


class ExitCode(enum.IntEnum):
    """What a `meshnode` command ends with.

    `run` is the exception: it ends with the application's own exit code (128 + N when signal N killed it)
    unless the user interrupted it or the node failed.
    """

    SUCCESS = 0
    """It did what was asked."""
    FAILURE = 1
    """It tried and failed: a call was refused, a node is not there, a process died."""
    USAGE = 2
    """The command line or a resource file cannot be used; nothing was started."""
    INTERRUPTED = 130
    """Ctrl-C."""
