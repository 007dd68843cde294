"""Log records as Dapr's users know them, and a bounded memory of the latest ones for `meshnode logs`.

Text is logfmt (`time="…" level=info msg="…" app_id=… scope=… type=log ver=…`), JSON has the same keys. A
record's extra values are given with `extra={"fields": {...}}`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TextIO, final

import trio
from attrs import field, frozen

from meshnode import __version__

__all__ = ["LogEntry", "LogTail", "add_stream", "configure_logging"]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_NAMES = {number: name for name, number in _LEVELS.items()}
_KEEP = 1000
_SUBSCRIBER_BUFFER = 256


@frozen
class LogEntry:
    """One record: `time` in seconds since 1970, `scope` the logger's name."""

    time: float
    level: str
    scope: str
    message: str
    fields: Mapping[str, str] = field(factory=dict)


def _entry(record: logging.LogRecord) -> LogEntry:
    message = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        message = f"{message}\n{logging.Formatter().formatException(record.exc_info)}"
    fields = {str(key): str(value) for key, value in getattr(record, "fields", {}).items()}
    return LogEntry(record.created, _NAMES.get(record.levelno, "info"), record.name, message, fields)


@final
class _Formatter(logging.Formatter):
    def __init__(self, app_id: str, instance: str, as_json: bool) -> None:
        super().__init__()
        self._common = {"app_id": app_id, "instance": instance}
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        entry = _entry(record)
        when = datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        values: dict[str, Any] = {"time": when, "level": entry.level, "msg": entry.message, **self._common}
        values |= {"scope": entry.scope, "type": "log", "ver": __version__, **entry.fields}
        if self._as_json:
            return json.dumps(values, ensure_ascii=False)
        return " ".join(f"{key}={_logfmt(key, str(value))}" for key, value in values.items())


def _logfmt(key: str, value: str) -> str:
    if key in ("time", "msg") or not value or any(c in value for c in ' "=\n\t'):
        return json.dumps(value, ensure_ascii=False)
    return value


@final
class _StreamHandler(logging.StreamHandler[TextIO]):
    """A reader that goes away is no error, and no reason for a traceback with each further line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)
            return
        logging.getLogger("meshnode").removeHandler(self)
        # What the stream still holds must go somewhere, or Python complains about it at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


@final
class LogTail(logging.Handler):
    """Keeps the latest records and hands new ones to those who watch. A slow watcher loses records, never
    the node its time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: deque[LogEntry] = deque(maxlen=_KEEP)
        self._watchers: set[trio.MemorySendChannel[LogEntry]] = set()
        self._token: trio.lowlevel.TrioToken | None = None

    def emit(self, record: logging.LogRecord) -> None:
        entry = _entry(record)
        self._kept.append(entry)
        if not self._watchers:
            return
        if trio.lowlevel.in_trio_run():
            self._hand_out(entry)
        elif self._token is not None:
            # From a driver's worker thread: sending from there would lose the watcher that waits.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._hand_out, entry)

    def _hand_out(self, entry: LogEntry) -> None:
        for watcher in tuple(self._watchers):
            try:
                watcher.send_nowait(entry)
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                continue  # full, or gone: the tail still has it

    def kept(self) -> tuple[LogEntry, ...]:
        return tuple(self._kept)

    def end_watches(self) -> None:
        """The node shuts down: watchers get what they have not read yet, then the end."""
        for watcher in tuple(self._watchers):
            watcher.close()
        self._watchers.clear()

    @contextmanager
    def watch(self) -> Iterator[trio.MemoryReceiveChannel[LogEntry]]:
        """New records for as long as the context is open."""
        self._token = trio.lowlevel.current_trio_token()
        send, receive = trio.open_memory_channel[LogEntry](_SUBSCRIBER_BUFFER)
        self._watchers.add(send)
        try:
            with receive:
                yield receive
        finally:
            self._watchers.discard(send)
            send.close()


def configure_logging(level: str, *, as_json: bool, app_id: str, instance: str, stream: TextIO) -> None:
    """Send the `meshnode` loggers of this process to `stream` and nowhere else. Libraries keep Python's
    defaults.
    """
    logger = logging.getLogger("meshnode")
    logger.handlers.clear()
    logger.setLevel(_LEVELS[level])
    logger.propagate = False
    add_stream(stream, as_json=as_json, app_id=app_id, instance=instance)


def add_stream(stream: TextIO, *, as_json: bool, app_id: str, instance: str) -> None:
    """Send the `meshnode` loggers to one more stream."""
    handler = _StreamHandler(stream)
    handler.setFormatter(_Formatter(app_id, instance, as_json))
    logging.getLogger("meshnode").addHandler(handler)
