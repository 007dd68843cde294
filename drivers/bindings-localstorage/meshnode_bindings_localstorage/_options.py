"""The metadata fields of `bindings.localstorage`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["Options", "refuse", "root_problem"]

_REFUSED = ("/proc", "/sys", "/boot", "/var/run/secrets", "/run/secrets")


@final
@frozen
class Options:
    """Metadata of `bindings.localstorage`."""

    root_path: str = option(
        "rootPath",
        "Folder that holds the files; made if it is not there. A relative one starts at the node's.",
    )
    decode_base64: bool = option(
        "decodeBase64",
        "Store what the data decodes to when it happens to be valid base64, as Dapr does. (Ours only.)",
        default=True,
    )

    def __attrs_post_init__(self) -> None:
        if not self.root_path or "\0" in self.root_path:
            raise root_problem("is no folder's name")
        refuse(Path(os.path.normpath(self.root_path)))


def refuse(path: Path) -> None:
    """Raises `ConfigError` for the folders that Dapr keeps away from too."""
    for refused in _REFUSED:
        if path.is_relative_to(refused):
            raise root_problem(f"{refused} is no place for files")


def root_problem(message: str) -> ConfigError:
    return ConfigError([Problem(message, field="rootPath")])
