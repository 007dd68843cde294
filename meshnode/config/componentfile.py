"""The Component resource as it is written, and the way from there to the model. May import this package
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, final

from attrs import frozen

from meshnode.config._fields import line_field, lines_field, yaml_field
from meshnode.config._manifest import ObjectMeta
from meshnode.config._problems import Report
from meshnode.config._scalars import INVALID, Duration, Text, json_text
from meshnode.config._yaml import Node
from meshnode.config.component import DEFAULT_INIT_TIMEOUT, Component, MetadataItem, SecretKeyRef
from meshnode.config.source import Source

__all__ = ["Auth", "ComponentManifest", "ComponentSpec", "NameValue", "component_from", "items_from"]


@final
class _ValueShape:
    """A scalar as written, or JSON; present even when it is null, which is the empty text."""

    expected = "a value"
    takes_null = True

    def read(self, node: Node, where: str, report: Report) -> Any:
        return json_text(node)

    def schema(self) -> dict[str, Any]:
        return {}


@frozen(eq=False, repr=False)
class NameValue:
    """One entry of `spec.metadata`, and of an HTTPEndpoint's headers."""

    name: str = yaml_field("name", "Name of the property.")
    value: Annotated[str | None, _ValueShape()] = yaml_field(
        "value", "The value, as plain text.", default=None
    )
    secret_key_ref: SecretKeyRef | None = yaml_field(
        "secretKeyRef", "Take the value from a secret store.", default=None
    )
    env_ref: str | None = yaml_field("envRef", "Take the value from an environment variable.", default=None)
    line: int = line_field()


def _check_type(text: str) -> None:
    kind, dot, name = text.partition(".")
    if not (kind and dot and name) or " " in text:
        raise ValueError(f'"{text}" is not a component type (write it like state.redis)')


@frozen(eq=False, repr=False)
class ComponentSpec:
    type: Annotated[str, Text("a component type such as state.redis", _check_type)] = yaml_field(
        "type", "Type of the component, such as state.redis."
    )
    version: str = yaml_field("version", "Version of the component type.", default="v1")
    ignore_errors: bool = yaml_field(
        "ignoreErrors", "Start without the component if it cannot be opened.", default=False
    )
    metadata: tuple[NameValue, ...] = yaml_field("metadata", "The component's settings.", default=())
    init_timeout: Annotated[float, Duration(bare=None)] = yaml_field(
        "initTimeout", "How long opening the component may take; 5s by default.", default=DEFAULT_INIT_TIMEOUT
    )
    lines: Mapping[str, int] = lines_field()


@frozen(eq=False, repr=False)
class Auth:
    secret_store: str = yaml_field(
        "secretStore", "Name of the secret store component that secretKeyRef refers to.", default=""
    )


@frozen(eq=False, repr=False)
class ComponentManifest:
    api_version: str = yaml_field("apiVersion", "Always dapr.io/v1alpha1.")
    kind: str = yaml_field("kind", "Always Component.")
    metadata: ObjectMeta = yaml_field("metadata", "Name of the component.")
    spec: ComponentSpec = yaml_field("spec", "What the component is.")
    auth: Auth = yaml_field("auth", "Where secretKeyRef looks.", default=Auth())
    scopes: tuple[str, ...] = yaml_field(
        "scopes", "App ids that may use the component; all if empty.", default=()
    )
    line: int = line_field()


def component_from(manifest: ComponentManifest, report: Report) -> Component:
    spec = manifest.spec
    items = items_from(spec.metadata, "spec.metadata", report)
    if items is INVALID:
        return INVALID  # type: ignore[no-any-return]
    fields = {f"spec.{name}": line for name, line in spec.lines.items()}
    return Component(
        name=manifest.metadata.name,
        type=spec.type,
        version=spec.version,
        namespace=manifest.metadata.namespace,
        metadata=items,
        scopes=manifest.scopes,
        ignore_errors=spec.ignore_errors,
        init_timeout=spec.init_timeout or DEFAULT_INIT_TIMEOUT,
        auth_secret_store=manifest.auth.secret_store,
        source=Source(report.file, manifest.line, {**fields, **{item.name: item.line for item in items}}),
    )


def items_from(values: tuple[NameValue, ...], where: str, report: Report) -> Any:
    """Metadata items, each with one origin and a name of its own; `INVALID` after a problem."""
    items: dict[str, MetadataItem] = {}
    sound = True
    for index, one in enumerate(values):
        place = f"{where}[{index}]"
        origins = [one.value is not None, one.secret_key_ref is not None, one.env_ref is not None]
        first = items.get(one.name.lower())
        if sum(origins) != 1 and not (one.value == "" and sum(origins) == 2):
            found = "has none of" if not any(origins) else "has more than one of"
            report.problem(
                one.line, place, f'"{one.name}" {found} value, secretKeyRef and envRef', "give exactly one"
            )
            sound = False
        elif first is not None:
            report.problem(one.line, place, f'"{one.name}" is given twice', f"first on line {first.line}")
            sound = False
        else:
            value = None if one.secret_key_ref is not None or one.env_ref is not None else one.value
            items[one.name.lower()] = MetadataItem(one.name, value, one.secret_key_ref, one.env_ref, one.line)
    return tuple(items.values()) if sound else INVALID
