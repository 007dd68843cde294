"""The multi-app run file."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from meshnode.config.runfile import RunFile, load_run_file
from meshnode.errors import ConfigError

WHOLE = """\
version: 1
name: shop
common:
  resourcesPath: ./shared
  configFilePath: ./config.yaml
  env:
    DEBUG: true
    LEVEL: 1
  logLevel: warn
  appLogDestination: console
apps:
  - appID: orders
    appDirPath: ./orders
    appPort: 5001
    appProtocol: grpc
    daprGRPCPort: 3501
    daprHTTPPort: -1
    enableApiLogging: true
    resourcesPaths: [./res, ../extra]
    configFilePath: own.yaml
    env:
      LEVEL: "2"
      EMPTY:
    command: [python3, app.py, --port, 5001]
    daprdLogDestination: fileAndConsole
  - appDirPath: ./checkout
    logLevel: debug
  - {appID: third, appDirPath: ./third}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("shared", "orders/res", "extra", "checkout/.dapr/resources", "third"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("config.yaml", "orders/own.yaml", "checkout/.dapr/config.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "dapr.yaml").write_text(WHOLE)
    return tmp_path


def test_the_whole_of_it(folder: Path) -> None:
    file = load_run_file(folder / "dapr.yaml")
    assert (file.name, [app.app_id for app in file.apps]) == ("shop", ["orders", "checkout", "third"])
    orders, checkout, third = file.apps
    assert orders.folder == folder / "orders"
    assert orders.command == ("python3", "app.py", "--port", "5001")
    assert orders.env == {"DEBUG": "true", "LEVEL": "2", "EMPTY": ""}
    assert orders.resources_paths == (folder / "orders/res", folder / "extra")
    assert orders.config_path == folder / "orders/own.yaml"
    assert orders.flags == {
        "log-level": "warn",
        "app-port": "5001",
        "app-protocol": "grpc",
        "dapr-grpc-port": "3501",
        "enable-api-logging": "true",
    }
    assert (orders.app_logs, orders.node_logs) == ("console", "fileAndConsole")
    assert checkout.command == ()
    assert checkout.flags == {"log-level": "debug"}
    assert checkout.resources_paths == (folder / "checkout/.dapr/resources",)
    assert checkout.config_path == folder / "checkout/.dapr/config.yaml"
    assert third.resources_paths == (folder / "shared",)
    assert third.config_path == folder / "config.yaml"
    assert (third.app_logs, third.node_logs, third.env) == (
        "console",
        "file",
        {"DEBUG": "true", "LEVEL": "1"},
    )


def test_a_folder_stands_for_its_run_file(folder: Path) -> None:
    assert load_run_file(folder).path == folder / "dapr.yaml"
    (folder / "dapr.yaml").rename(folder / "mesh.yaml")
    assert load_run_file(folder).path == folder / "mesh.yaml"
    with pytest.raises(ConfigError, match="the folder has no run file"):
        load_run_file(folder / "third")


def test_standard_input(folder: Path) -> None:
    assert [app.folder for app in load_run_file(folder, text=WHOLE).apps] == [
        folder / name for name in ("orders", "checkout", "third")
    ]


def test_older_notations(folder: Path) -> None:
    text = "version: 1\napps:\n- appDirPath: third\n  resourcesPaths: ../shared, ../extra\n"
    text += "  env: [{A: 1}, {B: 2}]\n"
    (app,) = load_run_file(folder, text=text).apps
    assert app.resources_paths == (folder / "shared", folder / "extra")
    assert app.env == {"A": "1", "B": "2"}


def complaints(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_run_file(folder, text=dedent(text))
    return [str(problem).removeprefix("(standard input):") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1: the file is empty"]),
        ("version: 1\napps: []\n---\nversion: 1\n", ["1: the file has more than one document"]),
        ("version: 1", ["1: apps: is missing (expected a list, each item a mapping)"]),
        ("version: 1\napps: []", ["1: apps: names no application"]),
        ("version: 2\napps: []", ['1: version: found "2", expected 1']),
        (
            "version: 1\napps:\n- appDirPath: third\n  comand: [a]",
            ['4: apps[0].comand: unknown field (did you mean "command"?)'],
        ),
        (
            "version: 1\napps:\n- {appID: a, appDirPath: third}\n- {appID: a, appDirPath: orders}",
            ['4: apps[1].appID: "a" is given twice (first on line 3)'],
        ),
        (
            "version: 1\napps:\n- {appDirPath: third, command: python3 a.py}",
            [
                '3: apps[0].command: found "python3 a.py", expected a list, each item text '
                "(begin each item with a dash)"
            ],
        ),
        (
            "version: 1\napps:\n- {appDirPath: third, appPort: 65536}",
            ['3: apps[0].appPort: found "65536", expected a whole number from -1 to 65535'],
        ),
        (
            "version: 1\ncommon: {daprdLogDestination: both}\napps:\n- {appDirPath: third}",
            ['2: common.daprdLogDestination: found "both" (allowed: console, file, fileAndConsole)'],
        ),
    ],
)
def test_one_mistake(folder: Path, text: str, expected: list[str]) -> None:
    assert complaints(folder, text) == expected


def test_paths_must_exist(folder: Path) -> None:
    text = "version: 1\ncommon: {resourcesPaths: [a]}\napps:\n- {appDirPath: b}\n"
    text += "- {appDirPath: third, configFilePath: c}"
    assert complaints(folder, text) == [
        f"2: common.resourcesPaths[0]: {folder}/a does not exist",
        f"4: apps[0].appDirPath: {folder}/b does not exist",
        f"5: apps[1].configFilePath: {folder}/third/c does not exist",
    ]


def test_lenient_lets_unknown_fields_pass(folder: Path) -> None:
    file = load_run_file(folder, text="version: 1\napps:\n- {appDirPath: third, colour: red}", lenient=True)
    assert isinstance(file, RunFile)
    assert [warning.field for warning in file.warnings] == ["apps[0].colour"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.yaml: cannot be read: No such file or directory"):
        load_run_file(tmp_path / "nope.yaml")
