"""Where a value comes from: flag, environment, project file, user file, default.

Every flag (and the global `output` and `color`) can be set as `MESHNODE_<FLAG>` in the environment, and by
its name in a TOML file: the project's `.meshnode/config.toml` (searched from the working folder upwards)
and the user's `config.toml` in the configuration folder. `meshnode config show` prints the result with its
sources.

Lies on the start-up path: tomllib and platformdirs are imported only when a file can matter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from meshnode.cli._errors import UsageProblem, suggestion
from meshnode.cli._flags import Flag, FlagTable, Kind

__all__ = ["Layer", "Resolved", "load_layers", "project_file", "resolve", "user_file"]

PROJECT_FILE = Path(".meshnode") / "config.toml"


@frozen
class Layer:
    """One source of values; `where` names a value's place in messages and in `config show`."""

    name: str
    values: Mapping[str, str | list[str]]
    origin: str = ""

    def where(self, flag: str) -> str:
        if self.name == "flag":
            return f"--{flag}"
        if self.name == "environment":
            return variable(flag)
        return f"{self.origin}: {flag}"


@frozen
class Resolved:
    """Values of all layers, converted on demand; the first layer that has a name wins."""

    table: FlagTable
    layers: tuple[Layer, ...]
    _converted: dict[str, Any] = field(factory=dict, init=False, repr=False, eq=False)

    def __contains__(self, name: str) -> bool:
        return self.layer(name) is not None

    def layer(self, name: str) -> Layer | None:
        """The layer that decides `name`; None when the default does."""
        return next((layer for layer in self.layers if name in layer.values), None)

    def get(self, name: str, default: Any = None) -> Any:
        """The converted value, or `default`; raises `UsageProblem` naming the source of a bad one."""
        if name in self._converted:
            return self._converted[name]
        layer = self.layer(name)
        if layer is None:
            return default
        value = self.table.convert(name, layer.values[name], layer.where(name))
        self._converted[name] = value
        return value


def variable(flag: str) -> str:
    """The environment variable of a flag."""
    return "MESHNODE_" + flag.upper().replace("-", "_")


def resolve(table: FlagTable, flags: Mapping[str, str | list[str]], env: Mapping[str, str]) -> Resolved:
    """All layers over `table`."""
    return Resolved(table, (Layer("flag", flags), *load_layers(table, env)))


def load_layers(table: FlagTable, env: Mapping[str, str]) -> Iterator[Layer]:
    """The layers below the flags. Unknown names in a file are an error; other commands' flags are not."""
    known = [flag.name for flag in table.flags if not flag.refused and not flag.hidden]
    yield Layer("environment", {name: env[variable(name)] for name in known if env.get(variable(name))})
    project = project_file(Path.cwd())
    if project is not None:
        yield Layer("project file", _read(project), str(project))
    user = user_file(env)
    if user is not None and user.is_file():
        yield Layer("user file", _read(user), str(user))


def project_file(start: Path) -> Path | None:
    """The nearest `.meshnode/config.toml` at or above `start`."""
    for folder in (start, *start.parents):
        if os.path.isfile(folder / PROJECT_FILE):
            return folder / PROJECT_FILE
    return None


def user_file(env: Mapping[str, str]) -> Path | None:
    """The user's file, which need not exist. None when there is no home to look in."""
    if folder := env.get("MESHNODE_CONFIG_DIR"):
        return Path(folder) / "config.toml"
    if "XDG_CONFIG_HOME" not in env and "HOME" not in env:
        return None
    import platformdirs

    return Path(platformdirs.user_config_dir("meshnode", appauthor=False)) / "config.toml"


def _read(path: Path) -> dict[str, str | list[str]]:
    import tomllib

    from meshnode.cli._runflags import SETTABLE

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(f"{path}: {error}") from None
    values: dict[str, str | list[str]] = {}
    for name, value in content.items():
        if name not in SETTABLE:
            raise UsageProblem(f"{path}: unknown setting {name}", suggestion(name, SETTABLE))
        values[name] = _text(path, SETTABLE[name], value)
    return values


def _text(path: Path, flag: Flag, value: Any) -> str | list[str]:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return _anchored(path, flag, str(value))
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return [_anchored(path, flag, part) for part in value]
    raise UsageProblem(f"{path}: {flag.name}: a string, number, boolean or list of strings is expected")


def _anchored(path: Path, flag: Flag, text: str) -> str:
    """Relative paths in a file start at the project's folder, or at the user file's own."""
    if flag.kind not in (Kind.PATH, Kind.PATHS) or text.startswith("~"):
        return text
    folder = path.parent.parent if path.parts[-2:] == PROJECT_FILE.parts else path.parent
    return str(folder / text)
