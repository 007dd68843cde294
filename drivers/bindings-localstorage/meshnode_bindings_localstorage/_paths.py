"""A name within the folder, without a way out of it.

Links are followed as long as they stay inside. What was found is then opened part by part from the folder
down, without following anything, so that a link put there meanwhile is not followed either.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshnode.errors import InvalidArgument

__all__ = ["folder_of", "inside", "open_folder"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def inside(root: Path, name: str) -> Path:
    """`name` relative to `root`, links resolved; the empty path is the root itself."""
    if "\0" in name:
        raise InvalidArgument("fileName must not contain a NUL character")
    normal = posixpath.normpath(name.lstrip("/") or ".")
    if normal == ".." or normal.startswith("../"):
        raise InvalidArgument(f"fileName {name!r} leads out of the folder")
    real = Path(os.path.realpath(root / normal))
    if not real.is_relative_to(root):
        raise InvalidArgument(f"fileName {name!r} is a link that leads out of the folder")
    return real.relative_to(root)


@contextmanager
def open_folder(root: Path, relative: Path, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder `relative` below `root`."""
    if make:
        root.mkdir(parents=True, exist_ok=True)
    folder = os.open(root, _FOLDER)
    try:
        for part in relative.parts:
            if make:
                _make(part, folder)
            below = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


@contextmanager
def folder_of(root: Path, relative: Path, *, make: bool = False) -> Iterator[int]:
    with open_folder(root, relative.parent, make=make) as folder:
        yield folder


def _make(name: str, folder: int) -> None:
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        pass
