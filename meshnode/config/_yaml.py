"""YAML text into nodes that know their lines. Imports yaml and this package's `_problems`.

Built on the parser's events and not on its composer: libyaml's composer recurses in C and ends the process on
deep nesting, and neither composer reports a key given twice. Nothing is decided about types here. A scalar
keeps the text that was written, so a name `y` stays `y`; what a plain `true` or `12` means is up to the field
that it fills (`_shapes`).

Bounded: nesting, the size of a text, and the number of nodes after aliases are expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias, final

import yaml
from attrs import evolve, frozen

from meshnode.config._problems import Report

__all__ = ["Items", "Node", "Scalar", "Table", "documents", "expand", "is_null"]

_MAX_DEPTH = 64
_MAX_NODES = 100_000
_MAX_CHARACTERS = 4 * 1024 * 1024
_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset(
    {"!", *(_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq"))}
)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


@frozen(eq=False)
class Scalar:
    """`plain` tells text without quotes (or tagged as something else than a string): the only one that can be
    a number or a null.
    """

    text: str
    plain: bool
    line: int
    size: int = 1


@frozen(eq=False)
class Items:
    items: tuple[Node, ...]
    line: int
    size: int = 1


@frozen(eq=False)
class Table:
    entries: tuple[tuple[Scalar, Node], ...]
    line: int
    size: int = 1

    def get(self, name: str) -> Node | None:
        return next((value for key, value in self.entries if key.text == name), None)


Node: TypeAlias = Scalar | Items | Table


class _Unreadable(Exception):
    """The rest of the file cannot be read; message and line for the report."""

    def __init__(self, message: str, line: int, remedy: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.remedy = remedy


def is_null(node: Node) -> bool:
    """An absent value: nothing, `~` or `null` without quotes."""
    return isinstance(node, Scalar) and node.plain and node.text in ("", "~", "null", "Null", "NULL")


def documents(text: str, report: Report) -> Iterator[Node]:
    """The documents of a text that are not empty. Problems go to the report; what could be read is still
    yielded.
    """
    if len(text) > _MAX_CHARACTERS:
        report.problem(1, "", f"the file is larger than {_MAX_CHARACTERS // 1024 // 1024} MiB")
        return
    composer = _Composer(text, report)
    while True:
        try:
            node = composer.next_document()
        except yaml.YAMLError as error:
            report.problem(*_syntax_problem(error, text))
            return
        except _Unreadable as error:
            report.problem(error.line, "", str(error), error.remedy)
            return
        if node is None:
            return
        if not is_null(node):
            yield node


def _syntax_problem(error: yaml.YAMLError, text: str) -> tuple[int, str, str, str]:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        line = min(mark.line + 1, text.count("\n") + 1)
    else:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
    parts = (
        getattr(error, "context", None),
        getattr(error, "problem", None) or getattr(error, "reason", None),
    )
    what = ": ".join(part for part in parts if part) or str(error)
    if "nesting depth" in what:  # PyYAML's own limit, since 6.0.4; it reads ahead of ours
        return line, "", f"nested more than {_MAX_DEPTH} levels deep", ""
    remedy = "YAML is indented with spaces" if "tab" in what or "'\\t'" in what else ""
    return line, "", f"not valid YAML: {what}", remedy


@final
class _Composer:
    """Events into nodes, one document at a time. Recursion is bounded by `_MAX_DEPTH`."""

    def __init__(self, text: str, report: Report) -> None:
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=loader))
        self._report = report
        self._anchors: dict[str, Node | None] = {}

    def next_document(self) -> Node | None:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                return self._node(next(self._events), 0)
        return None

    def _node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, line)
        if depth > _MAX_DEPTH:
            raise _Unreadable(f"nested more than {_MAX_DEPTH} levels deep", line)
        if event.tag is not None and event.tag not in _KNOWN_TAGS:
            self._report.problem(line, "", f"the tag {event.tag.replace(_TAG, '!!')} is not allowed here")
        if event.anchor is not None:
            self._anchors[event.anchor] = (
                None  # Until the node is complete: an alias inside itself is an error.
            )
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0] if event.tag is None else event.tag not in ("!", f"{_TAG}str")
            node = Scalar(event.value, plain, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._items(line, depth)
        else:
            node = self._table(line, depth)
        if node.size > _MAX_NODES:
            raise _Unreadable(
                f"more than {_MAX_NODES} values, aliases counted as often as they are used", line
            )
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, anchor: str | None, line: int) -> Node:
        if anchor is None or anchor not in self._anchors:
            raise _Unreadable(f"the alias *{anchor} has no anchor", line)
        node = self._anchors[anchor]
        if node is None:
            raise _Unreadable(f"the alias *{anchor} is inside the value that it stands for", line)
        return node

    def _items(self, line: int, depth: int) -> Items:
        items: list[Node] = []
        size = 1
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            node = self._node(event, depth + 1)
            items.append(node)
            size = self._grown(size + node.size, node.line)
        return Items(tuple(items), line, size)

    def _table(self, line: int, depth: int) -> Table:
        entries: dict[str, tuple[Scalar, Node]] = {}
        merged: list[tuple[Scalar, Node]] = []
        size = 1
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            size = self._grown(size + key.size + value.size, key.line)
            if not isinstance(key, Scalar):
                self._report.problem(key.line, "", "a key must be a plain word, not a list or a mapping")
            elif key.plain and key.text == "<<":
                merged += self._merged(value)
            elif key.text in entries:
                first = entries[key.text][0].line
                self._report.problem(
                    key.line, "", f'the key "{key.text}" is given twice', f"first on line {first}"
                )
            else:
                entries[key.text] = (key, value)
        for key, value in merged:
            entries.setdefault(key.text, (key, value))
        return Table(tuple(entries.values()), line, size)

    def _grown(self, size: int, line: int) -> int:
        if size > _MAX_NODES:
            raise _Unreadable(
                f"more than {_MAX_NODES} values, aliases counted as often as they are used", line
            )
        return size

    def _merged(self, node: Node) -> Iterable[tuple[Scalar, Node]]:
        tables = node.items if isinstance(node, Items) else (node,)
        for table in tables:
            if isinstance(table, Table):
                yield from table.entries
            else:
                self._report.problem(table.line, "", "<< takes a mapping or a list of mappings")


def expand(node: Node, env: Mapping[str, str], report: Report, where: str = "") -> Node:
    """`$NAME` and `${NAME}` in every value replaced from the environment, as Dapr does in Configuration
    files.
    """
    if isinstance(node, Scalar):
        return _expanded(node, env, report, where) if "$" in node.text else node
    if isinstance(node, Items):
        return evolve(
            node, items=tuple(expand(item, env, report, f"{where}[{i}]") for i, item in enumerate(node.items))
        )
    entries = (
        (key, expand(value, env, report, f"{where}.{key.text}".lstrip("."))) for key, value in node.entries
    )
    return evolve(node, entries=tuple(entries))


def _expanded(node: Scalar, env: Mapping[str, str], report: Report, where: str) -> Scalar:
    def value(match: re.Match[str]) -> str:
        name: str = match[1] or match[2]
        if name not in env:
            report.warning(
                node.line, where, f"the environment variable {name} is not set; it counts as empty"
            )
        return env.get(name, "")

    return evolve(node, text=_VARIABLE.sub(value, node.text))
