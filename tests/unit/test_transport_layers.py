"""The layers that `meshnode.transport`'s docstring draws: every import goes down, and trio stays above the
protocol.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import meshnode.transport

PACKAGE = "meshnode.transport."
FOLDER = Path(meshnode.transport.__file__).parent
SANS_IO = "connection"


def layers() -> list[str]:
    """The modules from the bottom to the top, as the docstring lists them."""
    drawing = (meshnode.transport.__doc__ or "").split("\n\n")[2]
    lines = [line.split(maxsplit=1)[1] for line in drawing.splitlines()]
    return [name for line in lines for name in line.replace(";", ",").replace(" ", "").split(",")]


def bare(name: str) -> str:
    return name.split("(")[0]


ORDER = [bare(name) for name in layers()]


def imports(path: Path) -> set[str]:
    """What a module imports when it runs: not what it needs for annotations only."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE[:-1]:
            found |= {PACKAGE + alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def modules() -> list[Path]:
    return [path for path in sorted(FOLDER.glob("*.py")) if not path.name.startswith("_")]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_imports_go_down(path: Path) -> None:
    position = ORDER.index(path.stem)
    for name in imports(path):
        if name.startswith(PACKAGE):
            below = name.removeprefix(PACKAGE)
            assert below.startswith("_") or ORDER.index(below) < position, f"{path.stem} imports {below}"
        elif name.startswith("meshnode."):
            assert name == "meshnode.errors"
        if name.split(".")[0] == "trio" and path.stem != "deadline":
            assert position > ORDER.index(SANS_IO)


def test_the_drawing_is_complete() -> None:
    assert sorted(ORDER) == [path.stem for path in modules()]
