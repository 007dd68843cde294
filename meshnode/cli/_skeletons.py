"""From the skeletons inside the package to a driver's distribution of its own.

`meshnode/skeletons` has one driver for each kind, of the type `KIND.mine`: code that runs, is checked and is
tested as it stands there. What is written differs from it in names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

from attrs import frozen

import meshnode
from meshnode.cli._errors import CliError, UsageProblem, suggestion
from meshnode.registry import EXTRAS, KINDS, Registry

__all__ = ["DriverName", "driver_kinds", "named", "write_driver"]

_ROOT = Path(meshnode.__file__).parent / "skeletons"
_PART = "[a-z0-9]+(-[a-z0-9]+)*"
_COMMON = ("__init__", "_options", "_system")
_FORM = "lower-case letters, digits and hyphens in parts joined by dots, such as state.mine"


@final
@frozen
class DriverName:
    """A component type, and what is named after it."""

    kind: str
    type: str

    @property
    def package(self) -> str:
        return "meshnode_" + re.sub("[.-]", "_", self.type)

    @property
    def folder(self) -> str:
        return self.type.replace(".", "-")

    @property
    def distribution(self) -> str:
        return "meshnode-driver-" + self.folder


def driver_kinds() -> list[str]:
    """The kinds of drivers that there are skeletons of."""
    return [kind for kind in KINDS if (_ROOT / _mine(kind).package).is_dir()]


def named(text: str) -> DriverName:
    """The name of a new driver. Raises `UsageProblem`."""
    kind, dot, rest = text.partition(".")
    kinds = driver_kinds()
    if not (dot and rest):
        example = kind if kind in kinds else "state"
        raise UsageProblem(f'"{text}" is not a component type', f"write it like {example}.mine")
    if kind in KINDS and kind not in kinds:
        raise UsageProblem(f"there is no skeleton of a {kind} driver", f"there is one of: {', '.join(kinds)}")
    if kind not in kinds:
        hint = suggestion(kind, kinds) or f"allowed: {', '.join(kinds)}"
        raise UsageProblem(f'there are no drivers of kind "{kind}"', hint)
    if not re.fullmatch(rf"{_PART}(\.{_PART})*", rest):
        raise UsageProblem(f'"{text}" is no name for a component type', f"allowed are {_FORM}")
    if text in EXTRAS or text in Registry.discover().types():
        raise UsageProblem(f"a driver of {text} exists already", f"see meshnode components describe {text}")
    return DriverName(kind, text)


def write_driver(name: DriverName, target: Path) -> None:
    """Writes the distribution into a folder that must not exist yet. Raises `CliError`."""
    files = {path: _renamed(text, name) for path, text in _files(name)}
    try:
        target.mkdir(parents=True)
        for path, text in files.items():
            (target / path).parent.mkdir(exist_ok=True)
            (target / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise CliError(f"{target} exists already", "name another folder after the driver's name") from None
    except OSError as error:
        raise CliError(f"{error.filename or target} cannot be written: {error.strerror}") from None


def _mine(kind: str) -> DriverName:
    return DriverName(kind, f"{kind}.mine")


def _files(name: DriverName) -> Iterator[tuple[str, str]]:
    """Every file of the distribution, with the text that it has in the skeleton."""
    mine = _mine(name.kind)
    own = _ROOT / f"README-{name.kind}.md"
    readme = _read(own if own.exists() else _ROOT / "README.md")
    (module,) = [path.stem for path in (_ROOT / mine.package).glob("*.py") if path.stem not in _COMMON]
    for path, text in {"README.md": readme, "pyproject.toml": _read(_ROOT / "pyproject.toml")}.items():
        # What all kinds share is written down for state stores.
        yield path, _replaced(text, {**_words(_mine("state"), mine), "_store.py": f"{module}.py"})
    for source in sorted((_ROOT / mine.package).iterdir()):
        if source.is_file():
            yield f"{mine.package}/{source.name}".replace(mine.package, name.package), _read(source)
    yield "tests/test_conformance.py", _read(_ROOT / "tests" / f"test_{name.kind}.py")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _renamed(text: str, name: DriverName) -> str:
    mine = _mine(name.kind)
    component = {"component: mine": f"component: {name.type.partition('.')[2]}"}
    return _replaced(text, {**_words(mine, name), **component})


def _words(old: DriverName, new: DriverName) -> dict[str, str]:
    """What is called differently. The entry point's group names the kind."""
    return {
        old.package: new.package,
        old.distribution: new.distribution,
        f'"meshnode.{old.kind}"': f'"meshnode.{new.kind}"',
        old.type: new.type,
    }


def _replaced(text: str, words: Mapping[str, str]) -> str:
    """All at once, so that nothing is replaced in what was put in."""
    pattern = "|".join(map(re.escape, words))
    return re.sub(pattern, lambda match: words[match[0]], text)
