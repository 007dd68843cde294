"""A node's resource files, watched: when they change, the node is asked to go by them. SIGHUP asks as well.

What decides is the files' contents, looked at whenever the file system tells of something and every half
minute besides, because not every file system tells. What cannot be used is a line in the log for each
mistake, and the node goes on as it is. Beside `process`.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import trio

from meshnode.config import Resources
from meshnode.errors import ConfigError, MeshError

__all__ = ["Reload", "Watcher"]

Reload = Callable[[Resources], Awaitable[object]]

_log = logging.getLogger("meshnode.reload")

_SUFFIXES = (".yaml", ".yml")
_LOOK_EVERY = 30.0
_SETTLE_MS, _STEP_MS = 200, 50
"""Milliseconds in which several changes become one, and between looks at whether to stop."""
_FIRST_MS = 500
"""Milliseconds after which it is being watched for sure, and between looks at whether a folder has gone."""
_MISSING_SECONDS = 1.0
"""Before a folder that is not there is looked for again."""


@final
class Watcher:
    """Made before the files are read for the first time; `run` then calls `reload` with what `load` makes of
    them whenever they are no longer what they were.
    """

    def __init__(self, paths: Sequence[Path], load: Callable[[], Resources]) -> None:
        self._paths = tuple(paths)
        self._seen = _contents(self._paths)
        self._load = load
        self._wake = trio.Event()
        self._asked = False

    def ask(self) -> None:
        """Reload now, even if nothing seems to have changed."""
        self._asked = True
        self._wake.set()

    async def run(self, reload: Reload) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while True:
                asked, self._asked = self._asked, False
                found = await trio.to_thread.run_sync(_contents, self._paths)
                if found != self._seen or asked:
                    self._seen = found
                    await self._apply(reload)
                with trio.move_on_after(_LOOK_EVERY):
                    await self._wake.wait()
                self._wake = trio.Event()

    async def _apply(self, reload: Reload) -> None:
        try:
            await reload(await trio.to_thread.run_sync(self._load))
        except ConfigError as error:
            for problem in error.problems:
                _log.error("the resources are not reloaded: %s", problem)
        except MeshError as error:
            _log.error("the resources are not reloaded: %s", error)

    async def _watch(self) -> None:
        """Wake up for what the file system tells; again and again, since a folder may be replaced."""
        while True:
            folders = sorted({str(one if one.is_dir() else one.parent) for one in self._paths})
            stop = threading.Event()
            soon = trio.lowlevel.current_trio_token().run_sync_soon
            wake = partial(soon, self._told, idempotent=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_set_at_end, stop)
                await trio.to_thread.run_sync(_follow, folders, stop, wake)
                nursery.cancel_scope.cancel()
            await trio.sleep(_MISSING_SECONDS)
            self._wake.set()

    def _told(self) -> None:
        self._wake.set()


def _follow(folders: Sequence[str], stop: threading.Event, wake: Callable[[], None]) -> None:
    """In a thread of its own, until `stop` or until a folder has gone or been replaced."""
    from watchfiles import watch  # only here: not on the way to a node's start

    identities = [_identity(folder) for folder in folders]
    watching = False
    how: dict[str, Any] = {"watch_filter": None, "debounce": _SETTLE_MS, "step": _STEP_MS, "recursive": False}
    try:
        for told in watch(*folders, **how, rust_timeout=_FIRST_MS, yield_on_timeout=True, stop_event=stop):
            if told or not watching:
                wake()  # the first time, too: before it was watched something may have changed
            watching = True
            if [_identity(folder) for folder in folders] != identities:
                return
    except (OSError, RuntimeError) as error:  # a folder is not there, or the system has no more watches
        _log.debug("looking at the resources every second, for they cannot be watched: %s", error)


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        found = Path(folder).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def _set_at_end(event: threading.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        event.set()


def _contents(paths: Sequence[Path]) -> Mapping[str, bytes]:
    """A digest of each file that counts; what cannot be read counts as something else again."""
    found: dict[str, bytes] = {}
    for path in paths:
        try:
            inside = sorted(path.iterdir()) if path.is_dir() else [path]
        except OSError:
            inside = []
        for file in inside:
            if file is path or (file.suffix.lower() in _SUFFIXES and file.is_file()):
                try:
                    found[str(file)] = hashlib.sha256(file.read_bytes()).digest()
                except OSError:
                    found[str(file)] = b""
    return found
