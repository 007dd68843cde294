"""The conventions that a machine can see: classes that nobody inherits from say so, public modules say what
is public, every module says what it is for, and nothing grows too long to read.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
GENERATED = {"dapr", "google", "grpc", "meshnode", "message_pool"}  # below meshnode/wire
LONGEST_FILE, LONGEST_FUNCTION = 450, 60
LONGER = {"_read": 70}  # HPACK's loop, in one piece because it is the hottest there is

MEANT_TO_BE_INHERITED = {
    # What generated code builds on.
    "meshnode.wire._message.Message",
    "meshnode.wire._stub.ServiceBase",
    "meshnode.wire._stub.ServiceStub",
    # Groups of commands: the top one loads its verbs when they are needed.
    "meshnode.cli._verb.VerbGroup",
}


def sources() -> list[Path]:
    """What is written by hand in the product and the drivers; quickstarts and skeletons are users' code."""
    found = []
    for path in sorted(
        [*(ROOT / "meshnode").rglob("*.py"), *(ROOT / "drivers").glob("*/meshnode_*/**/*.py")]
    ):
        parts = path.relative_to(ROOT).parts
        generated = parts[1] == "wire" and parts[2].removesuffix(".py") in GENERATED
        generated |= parts[:4] == ("drivers", "etcd", "meshnode_etcd", "wire")
        if not generated and not {"quickstarts", "skeletons"} & set(parts):
            found.append(path)
    return found


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[2:] if parts[0] == "drivers" else parts
    return ".".join(parts).removesuffix(".__init__")


def modules() -> Iterator[tuple[str, ModuleType]]:
    for path in sources():
        if path.name != "__main__.py":
            yield name_of(path), importlib.import_module(name_of(path))


def classes() -> Iterator[tuple[str, type[Any]]]:
    for name, module in modules():
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__ == name:
                yield f"{name}.{value.__qualname__}", value


def is_frozen(cls: type[Any]) -> bool:
    """Whether attrs refuses to set its attributes."""
    if not attrs.has(cls):
        return False
    blank = cls.__new__(cls)
    try:
        blank.something = None
    except attrs.exceptions.FrozenInstanceError:
        return True
    except AttributeError:
        return False
    return False


def may_be_open(name: str, cls: type[Any]) -> bool:
    return (
        name in MEANT_TO_BE_INHERITED
        or cls.__module__ == "meshnode.wire._known"  # what generated well-known types are extended with
        or issubclass(cls, BaseException | enum.Enum | tuple)
        or getattr(cls, "_is_protocol", False)
        or is_frozen(cls)
    )


def test_classes_are_final_values_errors_or_protocols() -> None:
    wrong = [
        name for name, cls in classes() if not may_be_open(name, cls) and not getattr(cls, "__final__", False)
    ]
    assert not wrong, "\n".join(wrong)


def test_what_is_meant_to_be_inherited_exists() -> None:
    assert {name for name, _ in classes()} >= MEANT_TO_BE_INHERITED


def test_public_modules_say_what_is_public() -> None:
    wrong = []
    for name, module in modules():
        own = {
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", None) == name
        }
        public = getattr(module, "__all__", None)
        if public is None and own and not any(part.startswith("_") for part in name.split(".")):
            wrong.append(f"{name} has no __all__")
        wrong += [f"{name}.{entry} does not exist" for entry in public or () if not hasattr(module, entry)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_a_module_can_be_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert not tree.body or ast.get_docstring(tree), "a module says what it is for"
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    if functions:
        assert "\nfrom __future__ import annotations\n" in text
    assert len(text.splitlines()) <= LONGEST_FILE
    long = [
        one.name
        for one in functions
        if (one.end_lineno or 0) - one.lineno >= LONGER.get(one.name, LONGEST_FUNCTION)
    ]
    assert not long, f"functions of {LONGEST_FUNCTION} lines and more: {long}"
