"""Run records: how one command finds the nodes that others started.

Each node keeps one JSON file in the user's runtime folder and holds a lock on it for as long as it lives.
So a record is live exactly when its lock is held: a node that was killed leaves a file nobody holds, which
the next reader removes, and a process id that was given to somebody else is never mistaken for a node.
Waiting for a node to end is waiting for its lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from meshnode.cli._folders import runtime_dir

if TYPE_CHECKING:
    from meshnode.config.nodeoptions import NodeOptions, NodeStarted

__all__ = ["RunRecord", "keep_record", "live_records", "wait_gone"]


@frozen
class RunRecord:
    """One running node. Field names are the keys of `meshnode list -o json`."""

    app_id: str
    namespace: str
    pid: int
    grpc_address: str
    internal_address: str
    started_at: float
    """Seconds since 1970."""
    app_port: int | None = None
    resources_paths: tuple[str, ...] = ()
    run_pid: int | None = None
    """The `meshnode run` above the node; None for a node started by itself."""
    http_port: int | None = None
    command: tuple[str, ...] = ()
    node_log: str = ""
    app_log: str = ""

    @classmethod
    def of(cls, options: NodeOptions, started: NodeStarted, run_info: Mapping[str, Any]) -> RunRecord:
        """The record of this process."""
        log = run_info.get("node_log") or (str(options.log_file.absolute()) if options.log_file else "")
        return cls(
            app_id=options.app_id,
            namespace=options.namespace,
            pid=os.getpid(),
            grpc_address=started.grpc_address,
            internal_address=started.internal_address,
            started_at=time.time(),
            app_port=options.app_port,
            resources_paths=tuple(str(path.absolute()) for path in options.resources_paths),
            run_pid=run_info.get("pid"),
            http_port=run_info.get("http_port"),
            command=tuple(run_info.get("command", ())),
            node_log=log,
            app_log=run_info.get("app_log", ""),
        )


@contextmanager
def keep_record(record: RunRecord) -> Iterator[None]:
    """Hold the record of this process for the length of the context."""
    folder = runtime_dir()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{record.pid}.json"
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump(attrs.asdict(record), file)
        file.flush()
        # The lock belongs to the file, not to its name: nobody ever sees the record without its holder.
        draft.rename(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def live_records() -> list[RunRecord]:
    """Every live node, oldest first. Files without a holder are removed, unreadable ones left out."""
    try:
        paths = list(runtime_dir().glob("*.json"))
    except OSError:
        return []
    found = [record for record in map(_read_live, paths) if record is not None]
    return sorted(found, key=lambda record: (record.started_at, record.pid))


def wait_gone(record: RunRecord) -> None:
    """Block until the node has ended. For a worker thread."""
    try:
        with (runtime_dir() / f"{record.pid}.json").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        pass


def _read_live(path: Path) -> RunRecord | None:
    try:
        with path.open("r", encoding="utf-8") as file:
            if _unheld(file.fileno()):
                path.unlink(missing_ok=True)
                return None
            content = json.load(file)
    except (OSError, ValueError):
        return None
    return _from_json(content)


def _unheld(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _from_json(content: Any) -> RunRecord | None:
    """A record of any version: keys this version does not know are dropped, missing optional ones take
    their default.
    """
    if not isinstance(content, dict):
        return None
    known = {attribute.name for attribute in attrs.fields(RunRecord)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
    }
    try:
        return RunRecord(**{key: value for key, value in values.items() if key in known})
    except TypeError:
        return None
