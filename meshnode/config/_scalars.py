"""Shapes of single values: text, numbers, booleans, durations, one of a list; and free JSON values.

`Shape.read` turns a node into a value, or reports what is wrong and answers `INVALID`; it never raises for
what a user wrote. May import this package's private modules only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, ClassVar, Final, Protocol, final

from attrs import frozen

from meshnode.config._problems import Report, did_you_mean, options_text
from meshnode.config._yaml import Items, Node, Scalar, Table, is_null
from meshnode.config.durations import MILLISECONDS, parse_duration

__all__ = [
    "BOOL",
    "DURATION",
    "FLOAT",
    "FREE",
    "INT",
    "INVALID",
    "TEXT",
    "Bool",
    "Choice",
    "Duration",
    "Free",
    "Int",
    "Number",
    "Shape",
    "Text",
    "describe",
    "json_text",
    "json_value",
    "wrong_type",
]

_TRUE = frozenset({"true", "yes", "on"})
_FALSE = frozenset({"false", "no", "off"})
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_REAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_SHOWN = 60


@final
class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"


INVALID: Final[Any] = _Invalid()
"""What `read` answers after it has reported a problem."""


class Shape(Protocol):
    @property
    def expected(self) -> str:
        """What a message says was expected: `a duration such as 5s`."""
        ...

    def read(self, node: Node, where: str, report: Report) -> Any: ...

    def schema(self) -> dict[str, Any]:
        """JSON Schema draft-07."""
        ...


def describe(node: Node) -> str:
    """What was found, for a message."""
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Table):
        return "a mapping"
    if is_null(node):
        return "nothing"
    return f'"{node.text}"' if len(node.text) <= _SHOWN else f'"{node.text[:_SHOWN]}…"'


def wrong_type(node: Node, expected: str, where: str, report: Report, remedy: str = "") -> Any:
    report.problem(node.line, where, f"found {describe(node)}, expected {expected}", remedy)
    return INVALID


@final
@frozen(eq=False, repr=False)
class Text:
    """Any scalar, as written. `check` raises `ValueError` with a sentence for text that is not allowed."""

    expected: str = "text"
    check: Callable[[str], object] | None = None

    def read(self, node: Node, where: str, report: Report) -> Any:
        if not isinstance(node, Scalar):
            return wrong_type(node, self.expected, where, report)
        if self.check is not None:
            try:
                self.check(node.text)
            except ValueError as error:
                report.problem(node.line, where, str(error))
                return INVALID
        return node.text

    def schema(self) -> dict[str, Any]:
        # Numbers and booleans without quotes are taken as the text that was written.
        return {"type": ["string", "number", "boolean"]}


@final
@frozen(eq=False, repr=False)
class Int:
    minimum: int | None = None
    maximum: int | None = None

    @property
    def expected(self) -> str:
        if self.minimum is None:
            return "a whole number"
        if self.maximum is None:
            return f"a whole number of at least {self.minimum}"
        return f"a whole number from {self.minimum} to {self.maximum}"

    def read(self, node: Node, where: str, report: Report) -> Any:
        if not isinstance(node, Scalar) or not _INTEGER.fullmatch(node.text) or len(node.text) > 20:
            return wrong_type(node, self.expected, where, report)
        if not node.plain:
            return wrong_type(node, self.expected, where, report, "remove the quotes")
        value = int(node.text)
        low, high = self.minimum, self.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            return wrong_type(node, self.expected, where, report)
        return value

    def schema(self) -> dict[str, Any]:
        limits = {"minimum": self.minimum, "maximum": self.maximum}
        return {"type": "integer", **{name: limit for name, limit in limits.items() if limit is not None}}


@final
@frozen(eq=False, repr=False)
class Number:
    """A real number; `quoted` also takes it in quotes, where Dapr's own type is a string. `%` divides by a
    hundred where allowed.
    """

    minimum: float | None = None
    maximum: float | None = None
    quoted: bool = False
    percent: bool = False

    @property
    def expected(self) -> str:
        limits = "" if self.minimum is None else f" from {self.minimum:g} to {self.maximum:g}"
        return f"a number{limits}" + (" or a share such as 20%" if self.percent else "")

    def read(self, node: Node, where: str, report: Report) -> Any:
        if not isinstance(node, Scalar) or not (node.plain or self.quoted or self.percent):
            return wrong_type(node, self.expected, where, report)
        share = self.percent and node.text.endswith("%")
        text = node.text[:-1] if share else node.text
        if not _REAL.fullmatch(text):
            return wrong_type(node, self.expected, where, report)
        value = float(text) / (100 if share else 1)
        if (self.minimum is not None and value < self.minimum) or (
            self.maximum is not None and value > self.maximum
        ):
            return wrong_type(node, self.expected, where, report)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": ["number", "string"] if self.quoted or self.percent else "number"}


@final
@frozen(eq=False, repr=False)
class Bool:
    expected: str = "true or false"

    def read(self, node: Node, where: str, report: Report) -> Any:
        word = node.text.lower() if isinstance(node, Scalar) else ""
        if word not in _TRUE and word not in _FALSE:
            return wrong_type(node, self.expected, where, report)
        if isinstance(node, Scalar) and not node.plain:
            return wrong_type(node, self.expected, where, report, "remove the quotes")
        return word in _TRUE

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@final
@frozen(eq=False, repr=False)
class Duration:
    """Seconds, from Go's notation; a bare number counts `bare` seconds (Dapr's policies take it as
    milliseconds).
    """

    bare: float | None = MILLISECONDS
    expected: str = "a duration such as 5s, 200ms or 1m30s"

    def read(self, node: Node, where: str, report: Report) -> Any:
        if not isinstance(node, Scalar):
            return wrong_type(node, self.expected, where, report)
        try:
            seconds = parse_duration(node.text, bare=self.bare)
        except ValueError as error:
            report.problem(node.line, where, str(error))
            return INVALID
        if seconds < 0:
            report.problem(node.line, where, f"{describe(node)} is negative", "a duration of 0 or more")
            return INVALID
        return seconds

    def schema(self) -> dict[str, Any]:
        pattern = r"^[+]?(0|[0-9]+|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$"
        return {"type": ["string", "integer"], "pattern": pattern, "examples": ["5s", "200ms", "1m30s"]}


@final
@frozen(eq=False, repr=False)
class Choice:
    """One of some words, matched without regard to case; the value is the word as listed here."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        return " or ".join(f'"{word}"' for word in self.words)

    def read(self, node: Node, where: str, report: Report) -> Any:
        if not isinstance(node, Scalar):
            return wrong_type(node, self.expected, where, report)
        for word in self.words:
            if word.lower() == node.text.lower():
                return word
        remedy = did_you_mean(node.text, self.words) or options_text(self.words)
        report.problem(node.line, where, f"found {describe(node)}", remedy)
        return INVALID

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


@final
@frozen(eq=False, repr=False)
class Free:
    """Anything, as JSON values."""

    expected: str = "any value"
    takes_null: ClassVar[bool] = True

    def read(self, node: Node, where: str, report: Report) -> Any:
        return json_value(node)

    def schema(self) -> dict[str, Any]:
        return {}


TEXT = Text()
INT = Int()
FLOAT = Number()
BOOL = Bool()
DURATION = Duration()
FREE = Free()


def json_value(node: Node) -> Any:
    """The node as JSON values. Words such as `yes` and `on` stay text, unlike in YAML 1.1."""
    if isinstance(node, Items):
        return [json_value(item) for item in node.items]
    if isinstance(node, Table):
        return {key.text: json_value(value) for key, value in node.entries}
    if not node.plain:
        return node.text
    if is_null(node):
        return None
    if node.text.lower() in ("true", "false"):
        return node.text.lower() == "true"
    if _INTEGER.fullmatch(node.text) and len(node.text) <= 20:
        return int(node.text)
    return float(node.text) if _REAL.fullmatch(node.text) and len(node.text) <= 40 else node.text


def json_text(node: Node) -> str:
    """A scalar as written; a list or mapping as compact JSON with sorted keys, which is what Dapr hands to a
    component.
    """
    if isinstance(node, Scalar):
        return "" if is_null(node) else node.text
    return json.dumps(json_value(node), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
