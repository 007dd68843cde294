"""Component metadata into a driver's attrs class, and that class described: as table rows and as JSON Schema.

An attribute made with `meshnode.interfaces.option` carries its YAML name and documentation; its annotation
says what the text that a user wrote has to become. Names and allowed words match without regard to case, as
in Dapr; a name that the driver does not know is a problem with the nearest known one, where Dapr says
nothing, unless the class has an attribute made with `free_form`, which takes such names. `meshnode.registry`
re-exports this for the layers above.
"""

from __future__ import annotations

import enum
import functools
import json
import logging
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar, final

import attrs
from attrs import NOTHING, frozen

from meshnode.config._problems import did_you_mean, nearest, options_text
from meshnode.config.component import Component, MetadataItem
from meshnode.config.durations import SECONDS, format_duration, parse_duration
from meshnode.config.quantity import parse_quantity
from meshnode.config.source import Source
from meshnode.errors import ConfigError, Problem

__all__ = ["ItemSchema", "OptionRow", "item_schemas", "load_options", "option_rows", "takes_any_name"]

T = TypeVar("T")

_log = logging.getLogger("meshnode.registry")
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})
_HIDDEN = "the value"


@frozen
class OptionRow:
    """One line of `components describe`."""

    name: str
    type: str
    required: bool
    default: str
    secret: bool
    allowed: tuple[str, ...]
    aliases: tuple[str, ...]
    doc: str


@frozen
class ItemSchema:
    """One metadata option for JSON Schema: the names it goes by, and the schema of its value."""

    names: tuple[str, ...]
    value: Mapping[str, Any]
    required: bool


@final
@frozen
class _Option:
    attribute: str
    name: str
    doc: str
    secret: bool
    allowed: tuple[str, ...]
    aliases: tuple[str, ...]
    default: Any
    type: Any
    optional: bool

    @property
    def required(self) -> bool:
        return self.default is NOTHING

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


def _options(cls: type[Any]) -> tuple[_Option, ...]:
    key: Any = cls  # `functools.cache` wants a Hashable, which `type[Any]` is not to mypy.
    return _read_options(key)


@functools.cache
def _read_options(cls: Any) -> tuple[_Option, ...]:
    hints = typing.get_type_hints(cls)
    return tuple(
        _Option(
            attribute.name,
            attribute.metadata["name"],
            attribute.metadata["doc"],
            attribute.metadata["secret"],
            tuple(attribute.metadata["allowed"]),
            tuple(attribute.metadata["aliases"]),
            attribute.default,
            *_plain_type(hints[attribute.name]),
        )
        for attribute in attrs.fields(cls)
        if "name" in attribute.metadata
    )


def takes_any_name(cls: type[Any]) -> bool:
    """Whether names that no option has are welcome."""
    return bool(_free_form(cls))


def _free_form(cls: type[Any]) -> str:
    """The attribute that takes what no option has; empty where there is none."""
    fields = attrs.fields(cls)
    return next((one.name for one in fields if "free_form" in one.metadata), "")


def _plain_type(hint: Any) -> tuple[Any, bool]:
    """The type without `| None`, and whether that was there."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [one for one in typing.get_args(hint) if one is not type(None)]
        return rest[0], True
    return hint, False


def load_options(
    cls: type[T],
    items: Component | Mapping[str, Any] | Iterable[MetadataItem | tuple[str, str]],
    source: Source | None = None,
    *,
    reserved: Collection[str] = frozenset(),
    lenient: bool = False,
) -> T:
    """The driver's options out of metadata names and values. Raises `ConfigError` with every problem.

    Values that are no text (from a mapping built in code) count as their JSON text. `reserved` names belong
    to the node and are left out here; `lenient` only warns about unknown names.
    """
    if isinstance(items, Component):
        source, items = source or items.source, items.metadata
    if isinstance(items, Mapping):
        items = [(name, one if isinstance(one, str) else json.dumps(one)) for name, one in items.items()]
    loading = _Loading(cls, source or Source(), frozenset(name.lower() for name in reserved), lenient)
    for item in items:
        if isinstance(item, MetadataItem):
            loading.add(item.name, item.value or "", item.line)
        else:
            loading.add(item[0], item[1], 0)
    return loading.result(cls)


@final
class _Loading:
    """One run over the metadata of one component."""

    def __init__(self, cls: type[Any], source: Source, reserved: frozenset[str], lenient: bool) -> None:
        self._options = _options(cls)
        self._source = source
        self._reserved = reserved
        self._lenient = lenient
        self._by_name = {name.lower(): option for option in self._options for name in option.names}
        self._free_form = _free_form(cls)
        self._others: dict[str, str] = {}
        self._values: dict[str, Any] = {}
        self._given: dict[str, str] = {}
        self._problems: list[Problem] = []
        # What unknown names were probably meant to be: that is not missing besides.
        self._meant: set[str | None] = set()

    def add(self, name: str, text: str, line: int) -> None:
        option = self._by_name.get(name.lower())
        if option is None:
            if self._free_form:
                self._add_other(name, text, line)
            elif name.lower() not in self._reserved:
                self._unknown(name, line)
            return
        before = self._given.setdefault(option.attribute, name)
        if before is not name:
            self._problem(name, f'means the same as "{before}", which is given too', "keep one of them", line)
            return
        try:
            value = _parsed(option, text)
        except ValueError as error:
            self._problem(name, str(error), options_text(option.allowed) if option.allowed else "", line)
            return
        if value is not NOTHING:
            self._values[option.attribute] = value

    def _add_other(self, name: str, text: str, line: int) -> None:
        if name in self._others:
            self._problem(name, "is given twice", "keep one of them", line)
        self._others[name] = text

    def _unknown(self, name: str, line: int) -> None:
        known = [option.name for option in self._options]
        remedy = did_you_mean(name, known)
        problem = self._problem(name, "unknown metadata name", remedy, line)
        if self._lenient:
            self._problems.remove(problem)
            _log.warning("%s", problem)
        else:
            self._meant.add(nearest(name, known))

    def _problem(self, name: str, message: str, remedy: str = "", line: int = 0) -> Problem:
        source = self._source
        place = f"{source.places.metadata}.{name}"
        problem = Problem(message, source.file, line or source.line_of(name), place, remedy)
        self._problems.append(problem)
        return problem

    def result(self, cls: type[T]) -> T:
        for option in self._options:
            given = option.attribute in self._given or option.name in self._meant
            if option.required and not given:
                self._problem(option.name, "is missing", option.doc)
        if self._problems:
            raise ConfigError(self._problems)
        if self._free_form:
            self._values[self._free_form] = self._others
        try:
            return cls(**self._values)
        except ConfigError as error:
            source = self._source
            placed = [_placed(one, source) for one in error.problems]
            raise ConfigError(placed) from error
        except (TypeError, ValueError) as error:
            raise ConfigError(
                [Problem(str(error), self._source.file, self._source.line, self._source.places.metadata)]
            ) from error


def _placed(problem: Problem, source: Source) -> Problem:
    """A driver's own check knows no file; its field may name a metadata item."""
    if problem.file:
        return problem
    metadata = source.places.metadata
    place = f"{metadata}.{problem.field}" if problem.field else metadata
    return attrs.evolve(problem, file=source.file, line=source.line_of(problem.field), field=place)


def _parsed(option: _Option, text: str) -> Any:
    """The value, or NOTHING for an empty text where the default then holds. Raises `ValueError` with a
    sentence.
    """
    if text == "" and option.type is not str:
        if option.required:
            raise ValueError(f"is empty, expected {_TYPE_TEXTS.get(option.type, 'a value')}")
        return NOTHING
    if option.allowed:
        text = _allowed(option, text)
    parse = _parser(option.type)
    try:
        return parse(text)
    except ValueError as error:
        shown = _HIDDEN if option.secret else f'"{text}"'
        expected = _TYPE_TEXTS.get(option.type, str(error))
        raise ValueError(f"found {shown}, expected {expected}") from None


def _allowed(option: _Option, text: str) -> str:
    for word in option.allowed:
        if word.lower() == text.lower():
            return word
    raise ValueError("is not an allowed value" if option.secret else f'found "{text}"')


_TYPE_TEXTS: Mapping[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    timedelta: "a duration such as 5s, 200ms or 1m30s",
}


def _parser(hint: Any) -> Callable[[str], Any]:
    if hint in _PARSERS:
        return _PARSERS[hint]
    origin = typing.get_origin(hint) or hint
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return origin
    if _is_mapping(hint):
        return functools.partial(_json, kind=dict, expected="a mapping")
    if _is_list(hint):
        return _mappings if any(map(_is_mapping, typing.get_args(hint))) else _words
    raise TypeError(f"an option cannot have the type {hint!r}")


def _is_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_list(hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE and word not in _FALSE:
        raise ValueError(word)
    return word in _TRUE


def _timedelta(text: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(text.strip(), bare=SECONDS))
    except OverflowError as error:
        raise ValueError(str(error)) from error


def _json(text: str, kind: type[Any], expected: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise ValueError(expected)  # noqa: TRY004 - the user's text is wrong, not an argument's type
    return value


def _words(text: str) -> tuple[str, ...]:
    """A list: as JSON (what a YAML list becomes) or comma-separated, as Dapr's components take it."""
    if text.lstrip().startswith("["):
        return tuple(str(one) for one in _json(text, list, "a list"))
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _mappings(text: str) -> tuple[Mapping[str, Any], ...]:
    found = _json(text, list, "a list of mappings")
    if not all(isinstance(one, dict) for one in found):
        raise ValueError("a list of mappings")
    return tuple(found)


_PARSERS: Mapping[Any, Callable[[str], Any]] = {
    str: str,
    bool: _bool,
    int: parse_quantity,
    float: float,
    timedelta: _timedelta,
}


def option_rows(cls: type[Any]) -> tuple[OptionRow, ...]:
    """The rows of `components describe`, in the order of the class."""
    return tuple(
        OptionRow(
            option.name,
            _type_name(option),
            option.required,
            _default_text(option),
            option.secret,
            option.allowed,
            option.aliases,
            option.doc,
        )
        for option in _options(cls)
    )


def _type_name(option: _Option) -> str:
    names = {str: "text", bool: "bool", int: "int", float: "number", timedelta: "duration"}
    if option.type in names:
        return names[option.type]
    return (
        "choice"
        if isinstance(option.type, type) and issubclass(option.type, enum.Enum)
        else "mapping or list"
    )


def _default_text(option: _Option) -> str:
    default = option.default
    if default is NOTHING or default is None or option.secret:
        return ""
    if isinstance(default, timedelta):
        return format_duration(default.total_seconds())
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, enum.Enum):
        return str(default.value)
    return "" if isinstance(default, attrs.Factory) else str(default)  # type: ignore[arg-type]


def item_schemas(cls: type[Any]) -> list[ItemSchema]:
    """What `schema.component_schema` needs to know of a driver's options."""
    return [_item_schema(option) for option in _options(cls)]


def _item_schema(option: _Option) -> ItemSchema:
    value: dict[str, Any] = {"type": ["string", "number", "boolean"]}
    if option.allowed:
        value = {"enum": list(option.allowed)}
    elif option.type is bool:
        value = {"enum": [True, False, "true", "false"]}
    elif option.type is int:
        value = {"type": ["integer", "string"]}
    elif _is_mapping(option.type):
        value = {"type": ["object", "string"]}
    elif _is_list(option.type):
        value = {"type": ["array", "string"]}
    default = _default_text(option)
    described = {"description": option.doc, **({"default": default} if default else {})}
    return ItemSchema(option.names, {**described, **value}, option.required)
