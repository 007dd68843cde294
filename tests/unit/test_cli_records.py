"""Run records: live exactly as long as their node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from meshnode.cli._records import RunRecord, keep_record, live_records, wait_gone
from meshnode.config.nodeoptions import NodeOptions, NodeStarted


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHNODE_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


def record(app_id: str = "orders", **changes: Any) -> RunRecord:
    made = RunRecord.of(
        NodeOptions(app_id=app_id, app_port=3000, resources_paths=(Path("res"),)),
        NodeStarted(("127.0.0.1:50001",), "127.0.0.1:50002"),
        {"pid": 77, "http_port": 3500, "command": ["python3", "app.py"], "app_log": "/tmp/x"},
    )
    return attrs.evolve(made, **changes)


def test_made_of_options_and_start() -> None:
    made = record()
    assert (made.app_id, made.pid, made.run_pid, made.http_port) == ("orders", os.getpid(), 77, 3500)
    assert made.command == ("python3", "app.py")
    assert made.resources_paths == (str(Path("res").absolute()),)


def test_live_while_held_only(folder: Path) -> None:
    assert live_records() == []
    with keep_record(record()):
        assert live_records() == [record(started_at=live_records()[0].started_at)]
        assert (folder.stat().st_mode & 0o777) == 0o700
        assert (next(folder.iterdir()).stat().st_mode & 0o777) == 0o600
    assert live_records() == []
    assert list(folder.iterdir()) == []


def test_what_a_killed_node_left_behind_is_removed(folder: Path) -> None:
    program = (
        "import os, attrs\n"
        "from meshnode.cli._records import *\n"
        "r = RunRecord('dead', 'default', os.getpid(), 'a:1', 'a:2', 1.0)\n"
        "context = keep_record(r); context.__enter__(); print('held', flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        (held,) = live_records()
        assert held.app_id == "dead"
        child.kill()
        wait_gone(held)
    assert live_records() == []
    assert list(folder.iterdir()) == []


def test_waiting_for_one_that_has_gone_returns_at_once() -> None:
    wait_gone(record(pid=1))


def test_records_of_other_versions(folder: Path) -> None:
    with keep_record(record()) as _:
        path = next(folder.iterdir())
        content = json.loads(path.read_text())
        with path.open("r+") as file:
            json.dump(content | {"invented_later": 1}, file)
        assert live_records()[0].app_id == "orders"


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"app_id": 1}'])
def test_broken_files_are_left_out(folder: Path, text: str) -> None:
    with keep_record(record()):
        path = next(folder.iterdir())
        path.write_text(text)
        assert live_records() == []
