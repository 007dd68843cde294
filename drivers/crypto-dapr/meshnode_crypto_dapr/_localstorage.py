"""`crypto.dapr.localstorage`: keys in the files of a folder, read at each use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import final

import trio
from attrs import frozen

from meshnode.errors import ComponentError, ComponentUnavailable, InvalidArgument
from meshnode.interfaces import CryptoProvider, Driver, DriverContext, option
from meshnode_crypto_dapr._jwk import parse_key
from meshnode_crypto_dapr._keys import Key
from meshnode_crypto_dapr._provider import KeyProvider

__all__ = ["LocalStorageOptions", "localstorage_driver"]

_MOST = 1 << 20
_KINDS = {".json": "json", ".pem": "pem"}


@frozen
class LocalStorageOptions:
    path: str = option("path", "The folder with the keys, each in a file of its name.")


@final
class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    async def find(self, name: str) -> Key:
        return await trio.to_thread.run_sync(self._load, name)

    def _load(self, name: str) -> Key:
        # In the thread, too: OpenSSL checks a private RSA key when it reads it, which takes milliseconds.
        return parse_key(self._read(name), _KINDS.get(Path(name).suffix.lower(), ""))

    def _read(self, name: str) -> bytes:
        """Raises `InvalidArgument` for a name that is no file below the folder."""
        if not name or ".." in name or "\0" in name:
            raise InvalidArgument("invalid key path: cannot be empty or contain '..'")
        try:
            path = (self._root / name.lstrip("/")).resolve(strict=True)
            if not path.is_relative_to(self._root) or not path.is_file():
                raise InvalidArgument(f"failed to load key '{name}': it is no file of the folder")
            with path.open("rb") as file:
                data = file.read(_MOST + 1)
        except (FileNotFoundError, NotADirectoryError, RuntimeError) as error:
            raise InvalidArgument(f"failed to load key '{name}': key not found") from error
        except OSError as error:
            raise ComponentUnavailable(f"failed to load key '{name}': {error.strerror}") from error
        if len(data) > _MOST:
            raise InvalidArgument(
                f"failed to load key '{name}': it is no key, it has more than {_MOST} bytes"
            )
        return data


@asynccontextmanager
async def _open(options: LocalStorageOptions, context: DriverContext) -> AsyncIterator[CryptoProvider]:
    path = trio.Path(options.path)
    if not await path.is_dir():
        raise ComponentError(f"path {options.path!r} is no folder")
    yield KeyProvider(_Folder(Path(await path.resolve())).find)


localstorage_driver: Driver[CryptoProvider] = Driver(
    type="crypto.dapr.localstorage",
    metadata=LocalStorageOptions,
    open=_open,
    summary="Cryptography with keys in local files.",
)
