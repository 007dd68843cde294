"""The binding."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, final
from uuid import UUID

import trio

from meshnode.errors import ComponentUnavailable, InvalidArgument
from meshnode.interfaces import BindingRequest, BindingResult, DriverContext
from meshnode_bindings_localstorage._files import create, delete, get, list_files, translate
from meshnode_bindings_localstorage._options import Options, refuse, root_problem
from meshnode_bindings_localstorage._payload import payload

__all__ = ["LocalStorage", "prepare"]

T = TypeVar("T")

_THREADS = 8
"""Enough to keep a disk busy; the threads are those of the whole node."""


def prepare(options: Options) -> Path:
    """The folder, made and with links resolved. Blocks."""
    root = Path(os.path.realpath(options.root_path))
    refuse(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise root_problem(f"{root} is not a folder") from None
    except OSError as error:
        raise ComponentUnavailable(f"cannot make {root}: {error.strerror or error}") from error
    return root


@final
class LocalStorage:
    """An `OutputBinding`. A write that has begun is finished, even if its caller has gone."""

    def __init__(self, options: Options, context: DriverContext, root: Path) -> None:
        self._options = options
        self._rng = context.rng
        self._root = root
        self._threads = trio.CapacityLimiter(_THREADS)

    @property
    def operations(self) -> Sequence[str]:
        return ("create", "get", "list", "delete")

    async def invoke(self, request: BindingRequest) -> BindingResult:
        name = request.metadata.get("fileName", "")
        match request.operation:
            case "create":
                return await self._create(name or str(self._uuid()), request.data)
            case "get":
                return BindingResult(await self._run(f"reading {name}", lambda: get(self._root, name)))
            case "list":
                files = await self._run(f"listing {name or self._root}", lambda: list_files(self._root, name))
                # Where there is nothing Dapr answers null, not an empty list.
                return BindingResult(_json(files or None))
            case "delete":
                await self._run(f"deleting {name}", lambda: delete(self._root, name))
                return BindingResult()
        raise InvalidArgument(f"unsupported operation {request.operation}")

    async def _create(self, name: str, data: bytes) -> BindingResult:
        token = self._uuid().hex
        written = payload(data, decode_base64=self._options.decode_base64)
        stored = await self._run(f"writing {name}", lambda: create(self._root, name, written, token))
        return BindingResult(_json({"fileName": stored}))

    async def _run(self, what: str, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads)
        except OSError as error:
            raise translate(error, what) from error

    def _uuid(self) -> UUID:
        return UUID(int=self._rng.getrandbits(128), version=4)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
