"""Which keys may have changed, from the connections (asyncio side) to the watch (trio's side).

Names are kept, not messages: the same key many times is one, and too many names become `everything`, so that
a watch whose application is slow holds no more than that.
"""

from __future__ import annotations

from typing import final

import trio

__all__ = ["News"]

_MOST = 10_000


@final
class News:
    """Both sides run in one thread."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}
        self._everything = False
        self._bell = trio.Event()

    def tell(self, key: str) -> None:
        if not self._everything:
            self._keys[key] = None
            if len(self._keys) > _MOST:
                self.tell_everything()
        self._bell.set()

    def tell_everything(self) -> None:
        self._everything = True
        self._keys.clear()
        self._bell.set()

    async def wait(self) -> None:
        await self._bell.wait()

    def take(self) -> list[str] | None:
        """The names since the last time, None for everything."""
        taken = None if self._everything else list(self._keys)
        self._keys.clear()
        self._everything = False
        self._bell = trio.Event()
        return taken
