"""Plans from a multi-app run file."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from meshnode.cli._errors import CliError, UsageProblem
from meshnode.cli._plan import AppPlan
from meshnode.cli._runfile import plans_from_file
from meshnode.cli._runflags import RUN_TABLE
from meshnode.cli._settings import Layer, Resolved

FILE = """
version: 1
common: {logLevel: warn}
apps:
- {appDirPath: ., appID: one, command: [echo, one], appPort: 5001, metricsPort: 9090}
- {appDirPath: ., appID: two, command: [echo, two], logLevel: debug}
"""


def plans(path: Path, *words: str, said: list[str] | None = None) -> list[AppPlan]:
    parsed = RUN_TABLE.parse(words)
    settings = Resolved(RUN_TABLE, (Layer("flag", parsed.values),))
    return plans_from_file(path, settings, parsed, (said if said is not None else []).append)


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "mesh.yaml"
    path.write_text(FILE)
    return path


def test_the_file_wins_over_flags_that_hold_for_all(run_file: Path) -> None:
    one, two = plans(run_file, "--log-level=error", "--dapr-graceful-shutdown-seconds=2")
    assert "--log-level=warn" in one.node_args
    assert "--log-level=debug" in two.node_args
    assert (one.node_grace, two.node_grace) == (2.0, 2.0)
    assert (one.app_port, two.app_port) == (5001, None)


def test_what_means_http_is_passed_over_and_said(run_file: Path) -> None:
    said: list[str] = []
    plans(run_file, said=said)
    assert ["one: metrics-port is passed over" in line for line in said] == [True]


def test_a_flag_of_one_application_cannot_hold_for_all(run_file: Path) -> None:
    with pytest.raises(UsageProblem, match="--app-port cannot hold for every application"):
        plans(run_file, "--app-port=5001")


def test_standard_input_is_read_as_a_file_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(FILE))
    assert [(plan.app_id, plan.cwd) for plan in plans(Path("-"))] == [("one", tmp_path), ("two", tmp_path)]


def test_all_problems_are_told_at_once(run_file: Path) -> None:
    run_file.write_text(FILE.replace("appID: two", "appID: one").replace("logLevel: warn", "logLevl: warn"))
    with pytest.raises(CliError) as caught:
        plans(run_file)
    assert "logLevl" in caught.value.message
    assert '"one" is given twice' in caught.value.message
    assert caught.value.code == 2
