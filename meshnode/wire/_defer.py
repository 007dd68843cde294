"""Import betterproto2 without the pydantic it imports wherever that is installed.

It is for an option our messages do not use, one of the node's dependencies installs it, and it takes 25 to 55
ms of CPU at every start. Messages of others that do use the option still work: betterproto2 finds a stand-in,
which loads the real module when something of it is read.

May import: the standard library, betterproto2.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, final

__all__ = ["import_betterproto2"]

_UNUSED = ("pydantic", "pydantic_core")


@final
class _Deferred:
    """Stands for a module until something of it is read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


def import_betterproto2() -> None:
    """To be called before anything else of meshnode.wire imports it."""
    wanted = {"betterproto2", *_UNUSED} & sys.modules.keys()
    if wanted or any(find_spec(name) is None for name in _UNUSED):
        return  # loaded already, or nothing to be saved
    hidden: dict[str, Any] = dict.fromkeys(_UNUSED)
    sys.modules.update(hidden)
    try:
        betterproto2 = import_module("betterproto2")
    finally:
        for name in _UNUSED:
            del sys.modules[name]
    for name in _UNUSED:
        setattr(betterproto2, name, _Deferred(name))
