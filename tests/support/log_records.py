"""A log that a test can wait for."""

from __future__ import annotations

import logging

import trio

__all__ = ["LogRecords"]


class LogRecords(logging.Handler):
    """`log` is a logger of its own, whose lines go nowhere else. For a single trio thread."""

    def __init__(self) -> None:
        super().__init__()
        self.log = logging.Logger("test", logging.DEBUG)
        self.log.addHandler(self)
        self.lines: list[str] = []
        self._send, self._receive = trio.open_memory_channel[str](1000)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._send.send_nowait(self.lines[-1])

    async def wait_for(self, text: str) -> None:
        """A line with the text, after those that have been waited for before."""
        with trio.fail_after(30):
            while text not in await self._receive.receive():
                pass
