"""The Configuration resource as a node uses it: its settings. Of several Configurations a later one's
sections replace an earlier one's (`merged`).

What is written in a file is in `configurationfile`, the classes of most sections in `sections`. Imports attrs
and this package's values only: on the start-up path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field, frozen

from meshnode.config.source import Places, Source

if TYPE_CHECKING:
    from meshnode.config.sections import API, AccessControl, Feature, Logging, Metrics, SecretsScope, Tracing

__all__ = ["NAME_RESOLUTION_PLACES", "Configuration", "NameResolution", "merged"]

NAME_RESOLUTION_PLACES = Places(
    "spec.nameResolution.component", "spec.nameResolution.version", "spec.nameResolution.configuration"
)


@frozen
class NameResolution:
    """`configuration` is for the driver; a value that is no scalar stands there as JSON."""

    component: str
    version: str = "v1"
    configuration: Mapping[str, str] = field(factory=dict)
    source: Source = field(default=Source(places=NAME_RESOLUTION_PLACES), eq=False, repr=False)


@frozen
class Configuration:
    """A node's settings. A section that was not given is None (or empty), which is not the same as given and
    empty.
    """

    name: str = ""
    namespace: str = ""
    tracing: Tracing | None = None
    metrics: Metrics | None = None
    logging: Logging | None = None
    api: API | None = None
    access_control: AccessControl | None = None
    name_resolution: NameResolution | None = None
    secrets: tuple[SecretsScope, ...] | None = None
    features: tuple[Feature, ...] | None = None
    denied_components: tuple[str, ...] | None = None
    workflow: Mapping[str, Any] | None = None
    mtls: Mapping[str, Any] | None = None
    ignored: tuple[str, ...] = ()
    """Sections that mean nothing to a node without HTTP, for a note in the log."""
    source: Source = field(default=Source(), eq=False, repr=False)

    @property
    def api_logging(self) -> bool:
        return self.logging is not None and self.logging.api.enabled

    def denies(self, type: str, version: str) -> bool:  # noqa: A002 - the resource's own word
        """`components.deny` names a type, or a type and version as `state.in-memory/v1`."""
        return any(
            one.lower() in (type.lower(), f"{type}/{version}".lower()) for one in self.denied_components or ()
        )


def merged(configurations: Sequence[Configuration]) -> Configuration:
    """One Configuration out of several: a section of a later one replaces that of an earlier one."""
    result = Configuration()
    for one in configurations:
        given = {
            name: value
            for name, value in attrs.asdict(one, recurse=False).items()
            if value not in (None, "", ())
        }
        result = attrs.evolve(result, **given)
    return result
