"""Where a resource was written. Imports attrs only."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

__all__ = ["COMPONENT_PLACES", "Places", "Source"]


@frozen
class Places:
    """The fields in which something that a driver is chosen and set up by is written."""

    type: str
    version: str
    metadata: str


COMPONENT_PLACES = Places("spec.type", "spec.version", "spec.metadata")


@frozen
class Source:
    """The file and the first line of a resource, and what it takes to place a problem that is found later.

    `lines` has those of metadata items by name, and those of other fields by their place (`spec.type`).
    """

    file: str = ""
    line: int = 0
    lines: Mapping[str, int] = field(factory=dict, eq=False, repr=False)
    places: Places = field(default=COMPONENT_PLACES, eq=False, repr=False)

    def line_of(self, name: str) -> int:
        """The line of a metadata item or place, or that of the resource."""
        return self.lines.get(name, self.line)
