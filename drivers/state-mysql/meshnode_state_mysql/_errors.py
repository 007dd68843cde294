"""What goes wrong at the server or on the way there, in the node's words."""

from __future__ import annotations

import struct
from typing import final

from pymysql.err import MySQLError

from meshnode.errors import ComponentError, ComponentUnavailable, StateError

__all__ = ["CHANGED", "DEADLOCK", "TROUBLE", "Abandoned", "InDoubt", "code_of", "is_lost", "translated"]

# PyMySQL raises the last ones for an answer that is not MySQL's.
TROUBLE = (MySQLError, OSError, struct.error, ValueError, IndexError, AssertionError, RuntimeError)
"""What PyMySQL raises."""

DEADLOCK = 1213
CHANGED = 1020
"""MariaDB's word for a row that somebody else has changed since the transaction began."""

_CLIENT = range(2000, 3000)
_LOST = frozenset({1053, 1152, 1153, 1158, 1159, 1160, 1161, 1927, 4031})
_PASSING = frozenset(
    {
        1021, 1037, 1040, 1041, 1114, 1129, 1203, 1205, 1226, 1290, 1297, 1317, 1792, 1836, 1969, 3024,
        CHANGED, DEADLOCK,
    }
)  # fmt: skip
"""No memory, disk or connection left, waited too long, interrupted, read-only for now: another attempt may
fare better.
"""


@final
class Abandoned(Exception):
    """Nobody waits for this job any more: it stops before its next statement."""


@final
class InDoubt(ComponentUnavailable):
    """Like its base, and the write may have been executed."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}; it may have been executed")


def code_of(error: BaseException) -> int:
    """The server's or PyMySQL's number; 0 where there is none."""
    code = error.args[0] if isinstance(error, MySQLError) and error.args else 0
    return code if isinstance(code, int) else 0


def is_lost(error: BaseException) -> bool:
    """Whether it is the connection that failed, and not the statement."""
    code = code_of(error)
    return code == 0 or code in _CLIENT or code in _LOST


def translated(address: str, error: BaseException, *, doubt: bool = False) -> ComponentError:
    text = f"mysql at {address}: {error.args[1] if len(error.args) > 1 else error or type(error).__name__}"
    if code_of(error):
        text += f" ({code_of(error)})"
    if not (is_lost(error) or code_of(error) in _PASSING):
        return StateError(text)
    return InDoubt(text) if doubt else ComponentUnavailable(text)
