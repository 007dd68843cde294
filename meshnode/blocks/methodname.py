"""The name of a method that another application is asked for, as Dapr lets it through: without what could be
taken for a query or hide where it leads. Pure.
"""

from __future__ import annotations

import json
import posixpath
import re

from meshnode.errors import InvalidArgument

__all__ = ["normalized"]

_PLAIN = re.compile(r"/?[\w-][\w.-]*(?:/[\w-][\w.-]*)*")


def normalized(method: str) -> str:
    """`/a//b/../c` -> `/a/c`. Raises `InvalidArgument` for `#`, `?` and control characters.

    Access control and the application see the same name, so a rule for `/admin` cannot be walked around.
    """
    if _PLAIN.fullmatch(method):
        return method  # as nearly all are: saves the walk through it
    _refuse_forbidden(method)
    return _cleaned(method)


def _refuse_forbidden(method: str) -> None:
    if any(one in method for one in "#?\0"):
        raise InvalidArgument(f"invalid method: method contains forbidden character: {_quoted(method)}")
    for position, one in enumerate(method):
        if one < " " or one == "\x7f":
            at = len(method[:position].encode())
            raise InvalidArgument(
                f"invalid method: method contains control character at position {at}: {_quoted(method)}"
            )


def _quoted(method: str) -> str:
    return json.dumps(method, ensure_ascii=False)


def _cleaned(method: str) -> str:
    if not method:
        return ""
    path = posixpath.normpath(method)
    if path.startswith("//"):  # POSIX keeps two slashes at the beginning, Go does not
        path = path[1:]
    while path.startswith("../"):
        path = path[3:]
    return "" if path in (".", "..") else path
