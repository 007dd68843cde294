"""How a model says which YAML field fills an attribute; `_shapes` reads it.

Apart from the shapes, because models lie on the start-up path and the reading of YAML does not. Imports
attrs only.
"""

from __future__ import annotations

from typing import Any

from attrs import NOTHING, field

__all__ = ["line_field", "lines_field", "yaml_field"]


def yaml_field(name: str, doc: str, *, default: Any = NOTHING) -> Any:
    """An attrs attribute with its YAML name; without `default` it is required."""
    return field(default=default, kw_only=True, metadata={"yaml": name, "doc": doc})


def line_field() -> Any:
    """An `int` attribute that receives the line of the mapping it stands in."""
    return field(default=0, kw_only=True, eq=False, repr=False, metadata={"line": True})


def lines_field() -> Any:
    """A mapping attribute that receives the line of each field that is given, by its YAML name."""
    return field(factory=dict, kw_only=True, eq=False, repr=False, metadata={"lines": True})
