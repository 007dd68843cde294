"""The user's folders, by XDG and its counterparts elsewhere; each has an environment variable over it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["runtime_dir", "state_dir"]


def state_dir() -> Path:
    """What should outlive a run: logs, embedded stores. `MESHNODE_STATE_DIR` overrides it."""
    if folder := os.environ.get("MESHNODE_STATE_DIR"):
        return Path(folder)
    import platformdirs

    return Path(platformdirs.user_state_dir("meshnode", appauthor=False))


def runtime_dir() -> Path:
    """What lives as long as a process: run records. `MESHNODE_RUNTIME_DIR` overrides it.

    Where the system gives no such folder, one below the state folder: never one that others can write to.
    """
    if folder := os.environ.get("MESHNODE_RUNTIME_DIR"):
        return Path(folder)
    if sys.platform != "darwin" and not os.environ.get("XDG_RUNTIME_DIR"):
        return state_dir() / "run"
    import platformdirs

    return Path(platformdirs.user_runtime_dir("meshnode", appauthor=False))
