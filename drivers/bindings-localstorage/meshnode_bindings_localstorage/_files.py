"""The four operations. Everything here blocks and runs in a worker thread."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from meshnode.errors import BindingError, ComponentError, ComponentUnavailable, InvalidArgument
from meshnode_bindings_localstorage._paths import folder_of, inside, open_folder

__all__ = ["create", "delete", "get", "list_files", "translate"]

_PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ESTALE}
    | {errno.ETIMEDOUT, errno.ENOMEM}
)
"""Errors that may be gone at the next attempt."""

UNFINISHED = ".meshnode-unfinished-"
"""How the names of files begin that are still being written."""


def translate(error: OSError, what: str) -> ComponentError:
    message = f"{what}: {error.strerror or error}"
    return ComponentUnavailable(message) if error.errno in _PASSING else BindingError(message)


def create(root: Path, name: str, data: bytes, token: str) -> str:
    """Writes a file in one step: whoever reads sees the old content or all of the new, after a crash too.

    Returns its name within the folder. `token` makes the name of the unfinished file unique.
    """
    relative = _named(inside(root, name))
    with folder_of(root, relative, make=True) as folder:
        mode = _mode_of(relative.name, folder)
        unfinished = UNFINISHED + token
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
        try:
            with os.fdopen(file, "wb") as stream:
                if mode is not None:
                    os.fchmod(file, mode)
                stream.write(data)
                stream.flush()
                os.fsync(file)
            os.replace(unfinished, relative.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(unfinished, dir_fd=folder)
            raise
        os.fsync(folder)
    return str(relative)


def _mode_of(name: str, folder: int) -> int | None:
    try:
        return stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def get(root: Path, name: str) -> bytes:
    relative = _named(inside(root, name))
    try:
        with folder_of(root, relative) as folder:
            # Without O_NONBLOCK a pipe without a writer would hold the thread for ever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            file = os.open(relative.name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise BindingError(f"file not found: {root / relative}") from None
    try:
        with open(file, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(file)  # `open` leaves it open where it turns out to be a folder


def delete(root: Path, name: str) -> None:
    """Removes a file, or a folder that is empty."""
    relative = _named(inside(root, name))
    with folder_of(root, relative) as folder:
        if stat.S_ISDIR(os.stat(relative.name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.rmdir(relative.name, dir_fd=folder)
        else:
            os.unlink(relative.name, dir_fd=folder)


def list_files(root: Path, name: str) -> list[str]:
    """The absolute paths of all files below, folder by folder in the order of their names.

    Links are named, not followed.
    """
    relative = inside(root, name)
    with open_folder(root, relative) as folder:
        found: list[str] = []
        _collect(folder, str(root / relative), found)
    return found


def _collect(folder: int, path: str, found: list[str]) -> None:
    for name in sorted(os.listdir(folder)):
        below = f"{path.rstrip('/')}/{name}"
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                try:
                    _collect(inner, below, found)
                finally:
                    os.close(inner)
            elif not name.startswith(UNFINISHED):
                found.append(below)
        except (FileNotFoundError, PermissionError):
            # Somebody removed it meanwhile, or it is not ours to see; Dapr goes on as well.
            continue


def _named(relative: Path) -> Path:
    if not relative.parts:
        raise InvalidArgument("fileName is missing in the metadata")
    if relative.name.startswith(UNFINISHED):
        raise InvalidArgument(f"fileName must not begin with {UNFINISHED}")
    return relative
