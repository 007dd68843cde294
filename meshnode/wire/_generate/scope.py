"""The names a codec module uses: functions, classes, constants, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from meshnode.wire._generate.model import ClassRef

__all__ = ["Scope"]

_RUNTIME = "meshnode.wire._runtime"


@final
class Scope:
    """Collects what the code of one module refers to, and writes its imports and constants."""

    def __init__(self, module: str, functions: Iterable[str]) -> None:
        """`module` is the codec module below meshnode.wire that is being written, and defines `functions`."""
        self._module = module
        self._own = frozenset(functions)
        # What a name stands for. Keyed by name, so that two classes of one name get two aliases.
        self._names: dict[str, tuple[str, str]] = {}
        self._constants: dict[str, str] = {}

    def runtime(self, name: str) -> str:
        """A helper of meshnode.wire._runtime."""
        return self._import(_RUNTIME, name, f"_{name}")

    def standard(self, module: str, name: str) -> str:
        """Something of the standard library."""
        return self._import(module, name, f"_{name}")

    def known(self, name: str) -> str:
        """A class of google.protobuf."""
        return self.cls(ClassRef("google.protobuf", name, ""))

    def cls(self, ref: ClassRef) -> str:
        """A generated class."""
        return self._import(f"meshnode.wire.{ref.package}", ref.name, ref.name)

    def function(self, verb: str, ref: ClassRef) -> str:
        """The `encode` or `decode` function of a message."""
        name = f"{verb}_{ref.name}"
        if ref.codec == self._module:
            return name
        return self._import(f"meshnode.wire.{ref.codec}", name, name)

    def constant(self, name: str, value: str) -> str:
        """A module-level constant."""
        self._constants[name] = value
        return name

    def new(self) -> str:
        """What makes an instance without running `__init__`."""
        return self.constant("_new", "object.__new__")

    def header(self) -> str:
        """The imports, sorted by module, and the constants."""
        lines = []
        for alias, (module, name) in sorted(self._names.items(), key=lambda item: (item[1], item[0])):
            lines.append(f"from {module} import {name}{'' if alias == name else f' as {alias}'}")
        lines.append("")
        lines += [f"{name} = {value}" for name, value in sorted(self._constants.items())]
        return "\n".join(lines)

    def _import(self, module: str, name: str, alias: str) -> str:
        if alias in self._own or self._names.get(alias, (module, name)) != (module, name):
            alias = f"{module.removeprefix('meshnode.wire.').replace('.', '_')}_{name}"
        self._names[alias] = (module, name)
        return alias
