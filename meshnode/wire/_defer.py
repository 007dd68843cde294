"""Imports that wait until they are needed.

betterproto2 imports pydantic wherever it is installed, for an option our messages do not use, and one of the
node's dependencies installs it: 57 ms of CPU at every start. A deferred module is there for everybody and
loads itself when an attribute of it is first read.

May import: the standard library.
"""

from __future__ import annotations

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec

__all__ = ["defer"]


def defer(name: str) -> None:
    """Make `import name` cheap, unless the module is loaded already or not installed."""
    if name in sys.modules:
        return
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = LazyLoader(spec.loader)
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
