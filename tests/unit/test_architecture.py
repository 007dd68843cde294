"""The layers of the design: imports go down, never up, and drivers see nothing but the interfaces and the
errors.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# From the bottom up; the modules of one entry are beside each other and may import one another.
LAYERS: list[set[str]] = [
    {"errors", "__init__"},
    {"wire"},
    {"transport"},
    {"config"},
    {"interfaces"},
    {"registry", "_options"},
    {"telemetry", "security"},
    {"resiliency"},
    {"components", "defaults", "unserved", "cluster"},
    {"app"},
    {"surroundings", "asyncioloop"},
    {"blocks"},
    {"api"},
    {"pluggable", "sockets"},
    {"planning", "tables", "surfaces", "reload", "node"},
    {"process", "watching"},
    {"testing", "cli", "quickstarts"},
    {"__main__"},
]
USERS = {"quickstarts", "skeletons"}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Stricter than the order: what a layer near the bottom may see of meshnode at all.
ONLY = {
    "errors": set(),
    "wire": {"errors"},
    "transport": {"errors"},
    "interfaces": {"errors"},
    "config": {"errors"},
}


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT / "meshnode")
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything a module imports, at whatever depth."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            if module == "meshnode":
                for alias in node.names:
                    yield node.lineno, f"meshnode.{alias.name}"
            else:
                yield node.lineno, module


def modules() -> list[Path]:
    generated = {"dapr", "google", "grpc", "meshnode"}
    """Every module of the product; quickstarts and skeletons are their users' code and follow no layers."""
    found = sorted(p for p in (ROOT / "meshnode").rglob("*.py") if not USERS & set(p.parts))
    return [p for p in found if p.relative_to(ROOT).parts[1:3] not in {("wire", name) for name in generated}]


def test_every_part_has_its_place() -> None:
    unplaced = {part_of(path) for path in modules()} - LEVEL.keys()
    assert not unplaced, f"not in a layer: {sorted(unplaced)}"


def test_imports_go_down() -> None:
    wrong = []
    for path in modules():
        here = part_of(path)
        for line, name in imports(path):
            pieces = name.split(".")
            if pieces[0] != "meshnode" or len(pieces) < 2 or pieces[1].startswith("__"):
                continue
            there = pieces[1]
            allowed = there == here or (
                there in ONLY[here] if here in ONLY else LEVEL.get(there, 99) <= LEVEL[here]
            )
            if not allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_drivers_see_only_interfaces_and_errors() -> None:
    wrong = []
    skeletons = (ROOT / "meshnode" / "skeletons").glob("meshnode_*/*.py")
    for path in sorted([*(ROOT / "drivers").rglob("*.py"), *skeletons]):
        for line, name in imports(path):
            if name.split(".")[0] == "meshnode" and not name.startswith(
                ("meshnode.interfaces", "meshnode.errors")
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("forbidden", ["asyncio", "trio_asyncio"])
def test_asyncio_stays_in_drivers(forbidden: str) -> None:
    """The node opens the one loop; nothing else in meshnode touches asyncio, save stubs that are generated
    for asyncio users.
    """
    allowed = {Path("meshnode/asyncioloop.py")} if forbidden == "trio_asyncio" else set()
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in modules()
        for line, name in imports(path)
        if name.split(".")[0] == forbidden and path.relative_to(ROOT) not in allowed
    ]
    assert not found
