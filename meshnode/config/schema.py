"""JSON Schema (draft-07) of the resource kinds, from the classes that the loader reads into; for editors.

`resource_schema` is one kind (every version of it), `component_schema` a Component of one driver's type,
`resources_schema` anything that may stand in a resource folder. May import this package only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meshnode.config._manifest import API_GROUP
from meshnode.config._shapes import model
from meshnode.config.componentfile import ComponentManifest
from meshnode.config.loader import KINDS
from meshnode.config.options import ItemSchema

__all__ = ["DRAFT", "component_schema", "name_resolution_schema", "resource_schema", "resources_schema"]

DRAFT = "http://json-schema.org/draft-07/schema#"


def resource_schema(kind: str) -> dict[str, Any]:
    """The schema of a kind such as `Component`. Raises `KeyError` for another name."""
    found = KINDS[kind]
    versions = [_manifest_schema(found.manifest(version), kind, version) for version in found.versions]
    body: Mapping[str, Any] = versions[0] if len(versions) == 1 else {"oneOf": versions}
    return {"$schema": DRAFT, "title": f"Dapr {kind}", **body}


def resources_schema() -> dict[str, Any]:
    """Any resource."""
    parts = [
        _manifest_schema(kind.manifest(version), kind.name, version)
        for kind in KINDS.values()
        for version in kind.versions
    ]
    return {"$schema": DRAFT, "title": "Dapr resource", "oneOf": parts}


def _manifest_schema(cls: type[Any], kind: str, version: str) -> dict[str, Any]:
    schema = model(cls).schema()
    schema["properties"] |= {"apiVersion": {"const": f"{API_GROUP}/{version}"}, "kind": {"const": kind}}
    return schema


def component_schema(
    type_name: str,
    versions: Sequence[str],
    summary: str,
    items: Iterable[ItemSchema],
    *,
    free_form: bool = False,
) -> dict[str, Any]:
    """A Component of this type: known metadata names only, unless it is `free_form`, each with its own type
    of value, the required ones present.
    """
    schema = _manifest_schema(ComponentManifest, "Component", "v1alpha1")
    spec = schema["properties"]["spec"]["properties"]
    spec["type"] = {"const": type_name, "description": summary}
    spec["version"] = {"enum": list(versions), "default": versions[0]}
    entry = spec["metadata"]["items"]
    known = list(items)
    if known and not free_form:
        spec["metadata"]["items"] = {"anyOf": [_entry_schema(entry, item) for item in known]}
    elif not free_form:
        spec["metadata"]["maxItems"] = 0
    required = [{"contains": _named(item.names)} for item in known if item.required]
    if required:
        spec["metadata"]["allOf"] = required
        schema["properties"]["spec"]["required"] = ["type", "metadata"]
    return {"$schema": DRAFT, "title": f"Component {type_name}", **schema}


def name_resolution_schema(
    component: str, versions: Sequence[str], summary: str, items: Iterable[ItemSchema]
) -> dict[str, Any]:
    """A Configuration that chooses this way of finding other nodes: its settings by name."""
    known = list(items)
    settings = {
        "type": "object",
        "properties": {name: dict(item.value) for item in known for name in item.names},
        "additionalProperties": False,
        "allOf": [
            {"anyOf": [{"required": [name]} for name in item.names]} for item in known if item.required
        ],
    }
    schema = _manifest_schema(KINDS["Configuration"].manifest("v1alpha1"), "Configuration", "v1alpha1")
    chosen = schema["properties"]["spec"]["properties"]["nameResolution"]
    chosen["properties"] |= {
        "component": {"const": component, "description": summary},
        "version": {"enum": list(versions), "default": versions[0]},
        "configuration": {name: value for name, value in settings.items() if value != []},
    }
    return {"$schema": DRAFT, "title": f"Configuration with nameResolution {component}", **schema}


def _entry_schema(entry: Mapping[str, Any], item: ItemSchema) -> dict[str, Any]:
    properties = {**entry["properties"], "name": {"enum": list(item.names)}, "value": dict(item.value)}
    return {**entry, "properties": properties}


def _named(names: Sequence[str]) -> dict[str, Any]:
    return {"properties": {"name": {"enum": list(names)}}, "required": ["name"]}
