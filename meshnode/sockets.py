"""The folder of pluggable components' sockets, and the registry with what is served there.

A node without such sockets loads nothing of `meshnode.pluggable`. May import `meshnode.registry` and, where
there are sockets, `meshnode.pluggable`.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from meshnode.registry import Registry

__all__ = ["discover_registry", "sockets_folder"]

_VARIABLE = "DAPR_COMPONENTS_SOCKETS_FOLDER"
_DEFAULT = "/tmp/dapr-components-sockets"

_log = logging.getLogger("meshnode.pluggable")


def sockets_folder(env: Mapping[str, str]) -> Path:
    return Path(env.get(_VARIABLE) or _DEFAULT)


async def discover_registry(env: Mapping[str, str]) -> Registry:
    """Everything installed, and the components that processes serve on sockets, which come first.

    Takes a few seconds at most, whatever the sockets do.
    """
    folder = sockets_folder(env)
    paths = _sockets(folder)
    if not paths:
        return Registry.discover(sockets=str(folder))
    from meshnode.pluggable.client.discovery import discovered  # only here: most nodes need none of it

    return Registry.discover(await discovered(paths), sockets=str(folder))


def _sockets(folder: Path) -> list[Path]:
    """By name. Whatever else lies there is none of ours, and a folder that cannot be read has none."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        _log.warning("pluggable components: cannot read %s: %s", folder, error.strerror)
        return []
    found = []
    for path in (folder / name for name in names):
        if _is_socket(path):
            found.append(path)
        elif not path.is_dir():
            _log.warning("no pluggable component at %s: it is no socket", path)
    return found


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
