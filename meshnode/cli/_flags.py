"""Flags as data, and the one parser for them.

`node` and `run` take some forty flags in daprd's syntax (`--name value`, `--name=value`, one dash or two,
`--switch`, `--switch=false`, a list by repetition or by commas). The table is the single definition: this
parser reads it, `_flagcommand` makes the help pages and the shell completion from it, `_settings` reads the
same names from environment and files. It has no dependency because starting a node is timed (importing
click alone costs more than everything here together).

Rules
- A flag given twice takes the last value; a list flag collects.
- The first word that is no flag, or `--`, ends the flags; the rest is the command to run.
- Values stay text here. `convert` turns them into their types, so that a value from a file gets the same
  check and the same message.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from meshnode.cli._errors import UsageProblem, suggestion

__all__ = ["Flag", "FlagTable", "Kind", "Parsed"]

_TRUE = frozenset({"true", "t", "1", "yes", "on"})
_FALSE = frozenset({"false", "f", "0", "no", "off"})


class Kind(enum.Enum):
    """What a flag's value is; the value is the placeholder shown in the help page."""

    TEXT = "TEXT"
    INT = "N"
    PORT = "PORT"
    BOOL = ""
    PATH = "PATH"
    LIST = "LIST"
    PATHS = "PATHS"
    QUANTITY = "SIZE"
    DURATION = "DURATION"


@frozen
class Flag:
    """One flag. `default` is what the help page shows; the default that counts is the field's in
    `NodeOptions`.

    `refused` makes it a flag that is known but not served: the sentence that says why. `harmless` are
    values under which it asks for nothing and is let through, so that arguments written for daprd still
    work.
    """

    name: str
    kind: Kind
    help: str
    default: str = ""
    short: str = ""
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    section: str = ""
    hidden: bool = False
    refused: str = ""
    harmless: tuple[str, ...] = ()


@frozen
class Parsed:
    """The flags found, by name, as text (a list for list flags), and the words after them."""

    values: Mapping[str, str | list[str]]
    rest: tuple[str, ...]


@frozen
class FlagTable:
    """The flags of one command."""

    command: str
    flags: tuple[Flag, ...]
    _by_word: dict[str, Flag] = field(init=False, repr=False, eq=False)

    @_by_word.default
    def _index(self) -> dict[str, Flag]:
        words = {name: flag for flag in self.flags for name in (flag.name, *flag.aliases)}
        return words | {flag.short: flag for flag in self.flags if flag.short}

    def __getitem__(self, name: str) -> Flag:
        return self._by_word[name]

    def parse(self, args: Sequence[str]) -> Parsed:
        """Read `args`; raises `UsageProblem` at the first word that cannot be read."""
        values: dict[str, str | list[str]] = {}
        words = iter(enumerate(args))
        for index, word in words:
            if word == "--":
                return Parsed(values, tuple(args[index + 1 :]))
            if not word.startswith("-") or word == "-":
                return Parsed(values, tuple(args[index:]))
            name, equals, value = word.lstrip("-").partition("=")
            flag = self._find(name, word)
            if not equals:
                value = "true" if flag.kind is Kind.BOOL else self._next(words, flag)
            if flag.refused:
                self._refuse(flag, value)
            else:
                _store(values, flag, value)
        return Parsed(values, ())

    def convert(self, name: str, value: str | list[str], where: str = "") -> Any:
        """The typed value of flag `name`; `where` says in the message where the text came from."""
        flag = self._by_word[name]
        source = where or f"--{flag.name}"
        try:
            return _CONVERTERS[flag.kind](value, flag)
        except ValueError as error:
            raise UsageProblem(f"{source}: {error}", self._help_hint()) from None

    def _find(self, name: str, word: str) -> Flag:
        flag = self._by_word.get(name)
        # A short flag has one dash; everything else may have one or two, as with Go's flag package.
        if flag is not None and (len(name) > 1 or not word.startswith("--")):
            return flag
        near = suggestion(
            name, (known for known in self._by_word if len(known) > 1 and not self._by_word[known].refused)
        )
        shown = word.partition("=")[0]
        raise UsageProblem(
            f"unknown flag {shown}", near.replace("mean ", "mean --") if near else self._help_hint()
        )

    def _next(self, words: Iterable[tuple[int, str]], flag: Flag) -> str:
        for _, word in words:
            return word
        raise UsageProblem(f"--{flag.name} needs a value", self._help_hint())

    def _refuse(self, flag: Flag, value: str) -> None:
        if value not in flag.harmless:
            raise UsageProblem(f"--{flag.name} is not a flag of {self.command}: {flag.refused}")

    def _help_hint(self) -> str:
        return f"see {self.command} --help"


def _store(values: dict[str, str | list[str]], flag: Flag, value: str) -> None:
    if flag.kind not in (Kind.LIST, Kind.PATHS):
        values[flag.name] = value
        return
    collected = values.setdefault(flag.name, [])
    assert isinstance(collected, list)
    collected.extend(part for part in (part.strip() for part in value.split(",")) if part)


def _one(value: str | list[str]) -> str:
    if isinstance(value, list):
        raise ValueError("one value is expected, not a list")  # noqa: TRY004
    return value


def _text(value: str | list[str], flag: Flag) -> str:
    text = _one(value)
    if flag.choices and text not in flag.choices:
        near = suggestion(text, flag.choices)
        raise ValueError(f"{text!r} is not one of {', '.join(flag.choices)}" + (f"; {near}" if near else ""))
    return text


def _int(value: str | list[str], flag: Flag) -> int:
    text = _one(value)
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _port(value: str | list[str], flag: Flag) -> int:
    port = _int(value, flag)
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port; ports are 0 (any free one) to 65535")
    return port


def _bool(value: str | list[str], flag: Flag) -> bool:
    text = _one(value).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _list(value: str | list[str], flag: Flag) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return tuple(value)


def _path(value: str | list[str], flag: Flag) -> Any:
    from pathlib import Path

    return Path(_one(value)).expanduser()


def _paths(value: str | list[str], flag: Flag) -> tuple[Any, ...]:
    return tuple(_path(part, flag) for part in _list(value, flag))


def _quantity(value: str | list[str], flag: Flag) -> int:
    from meshnode.config.quantity import parse_quantity

    return parse_quantity(_one(value))


def _duration(value: str | list[str], flag: Flag) -> float:
    from meshnode.config.durations import parse_duration

    return parse_duration(_one(value))


_CONVERTERS: dict[Kind, Callable[[Any, Flag], Any]] = {
    Kind.TEXT: _text,
    Kind.INT: _int,
    Kind.PORT: _port,
    Kind.BOOL: _bool,
    Kind.PATH: _path,
    Kind.LIST: _list,
    Kind.PATHS: _paths,
    Kind.QUANTITY: _quantity,
    Kind.DURATION: _duration,
}
