"""`meshnode new driver`: what is written, and what is refused. (tests/node/test_new_driver.py uses them.)"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from meshnode import __version__
from meshnode.cli._app import main
from meshnode.cli._skeletons import driver_kinds

ROOT = Path(__file__).resolve().parent.parent.parent
SKELETONS = ROOT / "meshnode" / "skeletons"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_there_are_skeletons_of_these_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(driver_kinds()) == {
        "state", "pubsub", "secretstores", "lock", "configuration", "bindings", "nameresolution",
    }  # fmt: skip
    assert main(["new", "driver", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in driver_kinds())


@pytest.mark.parametrize("kind", driver_kinds())
@pytest.mark.parametrize("name", ["x", "some-long.vendor-of-systems.store"])
def test_a_driver_is_a_whole_distribution(kind: str, name: str, tmp_path: Path) -> None:
    assert main(["new", "driver", f"{kind}.{name}"]) == 0
    words = re.sub("[.-]", "_", f"{kind}_{name}")
    folder = tmp_path / f"{kind}.{name}".replace(".", "-")
    written = files(folder)
    package = f"meshnode_{words}"
    assert {
        "README.md", "pyproject.toml", f"{package}/__init__.py", f"{package}/py.typed",
        f"{package}/_options.py", "tests/test_conformance.py",
    } < set(written)  # fmt: skip
    for path, text in written.items():
        assert not re.search(r"\bmine\b|_mine", text), path
        if path.endswith(".py"):
            compile(text, path, "exec")
    assert written[f"{package}/py.typed"] == ""
    project = tomllib.loads(written["pyproject.toml"])
    assert project["project"]["name"] == f"meshnode-driver-{folder.name}"
    assert project["project"]["entry-points"] == {f"meshnode.{kind}": {f"{kind}.{name}": f"{package}:driver"}}
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [package]
    readme = written["README.md"]
    (module,) = {path.split("/")[-1] for path in written if path.startswith(f"{package}/_")} - {
        "__init__.py", "_options.py", "_system.py",
    }  # fmt: skip
    assert f"`{module}`" in readme


def test_versions_are_bounded_as_ours() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())
    theirs = tomllib.loads((SKELETONS / "pyproject.toml").read_text())["project"]
    known = {*ours["project"]["dependencies"], *map(str, ours["dependency-groups"]["dev"])}
    known |= {one for one in ours["dependency-groups"]["test"] if isinstance(one, str)}
    known.add(f"meshnode>={__version__.rpartition('.')[0]},<0.{int(__version__.split('.')[1]) + 1}")
    assert {*theirs["dependencies"], *theirs["optional-dependencies"]["dev"]} <= known
    assert theirs["requires-python"] == ours["project"]["requires-python"]


def test_a_folder_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "driver", "lock.x", "a/b", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "type": "lock.x",
        "path": str(tmp_path / "a" / "b"),
        "package": "meshnode_lock_x",
        "distribution": "meshnode-driver-lock-x",
    }
    assert (tmp_path / "a" / "b" / "pyproject.toml").is_file()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch], ids=["folder", "file"])
def test_what_exists_is_refused(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "state-x")
    assert main(["new", "driver", "state.x"]) == 1
    assert "state-x exists already" in capsys.readouterr().err
    assert not (tmp_path / "state-x").is_dir() or files(tmp_path / "state-x") == {}


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["new", "driver", "state.x", "file/x"]) == 1
    assert "file/x cannot be written: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "error", "hint"),
    [
        ("", "is not a component type", "write it like state.mine"),
        ("mine", "is not a component type", "write it like state.mine"),
        ("lock.", "is not a component type", "write it like lock.mine"),
        ("stat.x", 'no drivers of kind "stat"', "did you mean state?"),
        ("x.y", 'no drivers of kind "x"', "allowed: state, "),
        ("crypto.x", "no skeleton of a crypto driver", "there is one of: state, "),
        ("state.X", "is no name for a component type", "lower-case letters"),
        ("state.x/v2", "is no name for a component type", "lower-case letters"),
        ("state.x..y", "is no name for a component type", "lower-case letters"),
        ("state.../../x", "is no name for a component type", "lower-case letters"),
        ("state.sqlite", "a driver of state.sqlite exists already", "meshnode components describe"),
        ("pubsub.kafka", "a driver of pubsub.kafka exists already", "meshnode components describe"),
    ],
)
def test_names_that_cannot_be(
    name: str, error: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "driver", name]) == 2
    said = capsys.readouterr()
    assert error in said.err
    assert hint in said.err
    assert said.out == ""
    assert not list(tmp_path.iterdir())


def test_without_a_name_the_quickstarts_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "-o", "json"]) == 0
    rows: list[Mapping[str, str]] = json.loads(capsys.readouterr().out)
    assert {"state-resiliency", "pub-sub"} < {row["name"] for row in rows}
    assert main(["new"]) == 0
    assert "meshnode new driver KIND.NAME" in capsys.readouterr().err
