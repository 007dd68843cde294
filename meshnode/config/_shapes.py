"""Shapes made of others: lists, mappings with free keys, and models, which are attrs classes.

A model's attributes are made with `_fields.yaml_field`; `model(cls)` derives its shape from the annotations,
so model, loader and JSON Schema cannot drift apart:

    str, int, bool, float       the scalar of that type; text is taken as written: a name `y` is "y"
    tuple[T, ...]               a list
    Mapping[str, T]             a mapping with free keys
    an attrs class              a mapping with its fields (`line_field`, `lines_field`: where they stand)
    T | None                    T; None when it is absent
    Any                         anything, as JSON values
    Annotated[T, shape]         that shape

Fields match by exact name, else without regard to case, as Go's decoders do. Classes that only carry a
manifest to its model are made without `eq` and `repr`, which attrs would compile at import: 0.36 ms a class
instead of 1.05, in the start of every node. May import this package's private modules only.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, cast, final

import attrs
from attrs import NOTHING, frozen

from meshnode.config._problems import Report, did_you_mean
from meshnode.config._scalars import BOOL, FLOAT, FREE, INT, INVALID, TEXT, Shape, wrong_type
from meshnode.config._yaml import Items as ItemsNode
from meshnode.config._yaml import Node, Table, is_null

__all__ = ["Items", "Model", "TableOf", "model"]

_SCALARS: Mapping[Any, Shape] = {str: TEXT, int: INT, bool: BOOL, float: FLOAT, Any: FREE}


@final
@frozen(eq=False, repr=False)
class Items:
    """A list; a single value without dashes is not one."""

    item: Shape

    @property
    def expected(self) -> str:
        return f"a list, each item {self.item.expected}"

    def read(self, node: Node, where: str, report: Report) -> Any:
        if not isinstance(node, ItemsNode):
            return wrong_type(node, self.expected, where, report, "begin each item with a dash")
        values = [self._read(item, f"{where}[{index}]", report) for index, item in enumerate(node.items)]
        return INVALID if any(value is INVALID for value in values) else tuple(values)

    def _read(self, item: Node, where: str, report: Report) -> Any:
        if is_null(item) and not _takes_null(self.item):
            return wrong_type(item, self.item.expected, where, report)
        return self.item.read(item, where, report)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema()}


@final
@frozen(eq=False, repr=False)
class TableOf:
    """A mapping whose keys the user chooses. A value that is absent (`name:`) is read as an empty mapping
    where that is what is expected.
    """

    value: Shape

    @property
    def expected(self) -> str:
        return f"a mapping, each value {self.value.expected}"

    def read(self, node: Node, where: str, report: Report) -> Any:
        if not isinstance(node, Table):
            return wrong_type(node, self.expected, where, report)
        values = {
            key.text: self._read(key.line, value, f"{where}.{key.text}", report)
            for key, value in node.entries
        }
        return INVALID if any(value is INVALID for value in values.values()) else values

    def _read(self, line: int, value: Node, where: str, report: Report) -> Any:
        if is_null(value) and isinstance(self.value, Model):
            value = Table((), line)
        elif is_null(value) and not _takes_null(self.value):
            return wrong_type(value, self.value.expected, where, report)
        return self.value.read(value, where, report)

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.value.schema()}


@final
@frozen(eq=False, repr=False)
class _Field:
    attribute: str
    name: str
    doc: str
    shape: Shape
    required: bool


@final
@frozen(eq=False, repr=False)
class Model:
    """A mapping with the fields of an attrs class."""

    cls: type[Any]
    fields: tuple[_Field, ...]
    line_attribute: str | None
    lines_attribute: str | None
    expected: str = "a mapping"

    def read(self, node: Node, where: str, report: Report) -> Any:
        if not isinstance(node, Table):
            names = ", ".join(one.name for one in self.fields)
            return wrong_type(node, self.expected, where, report, f"with the fields {names}")
        values, sound = self._values(node, where, report)
        for one in self.fields:
            if one.required and one.attribute not in values:
                report.problem(
                    node.line, _join(where, one.name), "is missing", f"expected {one.shape.expected}"
                )
                sound = False
        if not sound:
            return INVALID
        if self.line_attribute is not None:
            values[self.line_attribute] = node.line
        if self.lines_attribute is not None:
            known = ((self._field(key.text), key.line) for key, _ in node.entries)
            values[self.lines_attribute] = {one.name: line for one, line in known if one is not None}
        return self.cls(**values)

    def _values(self, node: Table, where: str, report: Report) -> tuple[dict[str, Any], bool]:
        """Values by attribute; False if one of them could not be read. A wrong one is there as INVALID: it is
        not missing besides.
        """
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.entries:
            one = self._field(key.text)
            if one is None:
                remedy = did_you_mean(key.text, [known.name for known in self.fields])
                report.unknown(key.line, _join(where, key.text), "unknown field", remedy)
            elif one.attribute in lines:
                first = lines[one.attribute]
                report.problem(key.line, _join(where, key.text), f"is given twice, first on line {first}")
            else:
                lines[one.attribute] = key.line
                if not is_null(value) or _takes_null(one.shape):
                    values[one.attribute] = one.shape.read(value, _join(where, one.name), report)
        return values, not any(value is INVALID for value in values.values())

    def _field(self, name: str) -> _Field | None:
        for one in self.fields:
            if one.name == name:
                return one
        folded = name.lower()
        return next((one for one in self.fields if one.name.lower() == folded), None)

    def schema(self) -> dict[str, Any]:
        properties = {one.name: _documented(one) for one in self.fields}
        required = [one.name for one in self.fields if one.required]
        schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        return {**schema, "required": required} if required else schema


def _takes_null(shape: Shape) -> bool:
    """Whether `name:` with nothing behind it is a value of its own, rather than an absent one."""
    return bool(getattr(shape, "takes_null", False))


def _documented(one: _Field) -> dict[str, Any]:
    schema = one.shape.schema()
    return {"description": one.doc, **schema} if one.doc else schema


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def model(cls: type[Any]) -> Model:
    """The shape of an attrs class, once per class."""
    key: Any = cls  # `functools.cache` wants a Hashable, which `type[Any]` is not to mypy.
    return _model(key)


@functools.cache
def _model(cls: Any) -> Model:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields: list[_Field] = []
    line_attribute: str | None = None
    lines_attribute: str | None = None
    for attribute in attrs.fields(cls):
        if "yaml" in attribute.metadata:
            name, doc = attribute.metadata["yaml"], attribute.metadata["doc"]
            shape = _shape(hints[attribute.name])
            fields.append(_Field(attribute.name, name, doc, shape, attribute.default is NOTHING))
        elif "line" in attribute.metadata:
            line_attribute = attribute.name
        elif "lines" in attribute.metadata:
            lines_attribute = attribute.name
    return Model(cls, tuple(fields), line_attribute, lines_attribute)


def _shape(hint: Any) -> Shape:
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is Annotated:
        return cast(Shape, arguments[1])
    if origin in (typing.Union, types.UnionType):
        return _shape(next(argument for argument in arguments if argument is not type(None)))
    if origin is tuple:
        return Items(_shape(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return TableOf(_shape(arguments[1]))
    if attrs.has(hint):
        return model(hint)
    raise TypeError(f"no shape for the annotation {hint!r}")
