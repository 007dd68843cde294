"""The quickstarts inside the package: what there is, and where."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

import meshnode

__all__ = ["Quickstart", "find", "quickstarts"]


@frozen
class Quickstart:
    """One quickstart; its summary is the first line of its README."""

    name: str
    path: Path
    summary: str


def quickstarts() -> list[Quickstart]:
    """All of them, by name. Names have dashes, folders underscores."""
    root = Path(meshnode.__file__).parent / "quickstarts"
    found = []
    for readme in sorted(root.glob("*/README.md")):
        summary = readme.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        found.append(Quickstart(readme.parent.name.replace("_", "-"), readme.parent, summary))
    return found


def find(name: str) -> Quickstart | None:
    """By name, dashes or underscores."""
    wanted = name.replace("_", "-")
    return next((entry for entry in quickstarts() if entry.name == wanted), None)
