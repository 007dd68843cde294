"""JSON Schemas: they are draft-07, and they take and refuse what the loader takes and refuses."""

from __future__ import annotations

from textwrap import dedent, indent
from typing import Any

import pytest
from jsonschema import Draft7Validator

from meshnode.config._problems import Report
from meshnode.config._scalars import json_value
from meshnode.config._yaml import documents
from meshnode.config.loader import KINDS, load_text
from meshnode.config.runfile import run_file_schema
from meshnode.config.schema import resource_schema, resources_schema
from meshnode.errors import ConfigError

GOOD = [
    ("Component", "v1alpha1", "type: state.redis\nversion: v1\nmetadata:\n- {name: redisHost, value: a:1}"),
    (
        "Component",
        "v1alpha1",
        "type: a.b\nmetadata:\n- {name: n, value: 5}\n- {name: s, secretKeyRef: {name: x, key: y}}",
    ),
    ("Configuration", "v1alpha1", "tracing: {samplingRate: '1'}\nnameResolution: {component: sqlite}"),
    (
        "Resiliency",
        "v1alpha1",
        "policies:\n  timeouts: {a: 5s}\n  retries: {r: {policy: constant, maxRetries: -1}}",
    ),
    (
        "Resiliency",
        "v1alpha1",
        "policies:\n  timeouts: {a: 500}\n  circuitBreakers: {c: {trip: requests > 1}}",
    ),
    ("Subscription", "v1alpha1", "pubsubname: p\ntopic: t\nroute: /r"),
    ("Subscription", "v2alpha1", "pubsubname: p\ntopic: t\nroutes: {rules: [{match: 'true', path: /r}]}"),
    ("HTTPEndpoint", "v1alpha1", "baseUrl: https://example.com"),
]
BAD = [
    ("Component", "v1alpha1", "version: v1"),
    ("Component", "v1alpha1", "type: a.b\nmetadata: {a: b}"),
    ("Component", "v1alpha1", "type: a.b\ncolour: red"),
    ("Component", "v2alpha1", "type: a.b"),
    ("Configuration", "v1alpha1", "tracing: {sampleRate: 1}"),
    ("Configuration", "v1alpha1", "accessControl: {defaultAction: block}"),
    ("Resiliency", "v1alpha1", "policies:\n  timeouts: {a: 5 seconds}"),
    ("Resiliency", "v1alpha1", "policies:\n  retries: {r: {policy: linear}}"),
    ("Resiliency", "v1alpha1", "policies:\n  retries: {r: {maxRetries: -2}}"),
    ("Subscription", "v1alpha1", "pubsubname: p\ntopic: t\nroutes: {}"),
    ("HTTPEndpoint", "v1alpha1", "baseUrl: a\nheaders: b"),
]


def text_of(kind: str, version: str, spec: str) -> str:
    head = f"apiVersion: dapr.io/{version}\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n"
    return head + indent(dedent(spec), "  ") + "\n"


def value_of(text: str) -> Any:
    (node,) = documents(text, Report())
    return json_value(node)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_they_are_draft_07(kind: str) -> None:
    schema = resource_schema(kind)
    Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_so_are_the_others() -> None:
    Draft7Validator.check_schema(resources_schema())
    Draft7Validator.check_schema(run_file_schema())
    with pytest.raises(KeyError):
        resource_schema("Pod")


@pytest.mark.parametrize(("kind", "version", "spec"), GOOD)
def test_what_the_loader_takes(kind: str, version: str, spec: str) -> None:
    text = text_of(kind, version, spec)
    load_text(text)
    Draft7Validator(resource_schema(kind)).validate(value_of(text))
    Draft7Validator(resources_schema()).validate(value_of(text))


@pytest.mark.parametrize(("kind", "version", "spec"), BAD)
def test_what_the_loader_refuses(kind: str, version: str, spec: str) -> None:
    text = text_of(kind, version, spec)
    with pytest.raises(ConfigError):
        load_text(text)
    assert not Draft7Validator(resource_schema(kind)).is_valid(value_of(text))
    assert not Draft7Validator(resources_schema()).is_valid(value_of(text))


def test_run_file() -> None:
    validator = Draft7Validator(run_file_schema())
    validator.validate(
        {"version": 1, "common": {"env": {"A": 1}}, "apps": [{"appDirPath": ".", "command": ["a"]}]}
    )
    assert not validator.is_valid({"version": 2, "apps": []})
    assert not validator.is_valid({"version": 1, "apps": [{"appID": "a"}]})


def every_property(schema: Any) -> list[Any]:
    if isinstance(schema, list):
        return [one for item in schema for one in every_property(item)]
    if not isinstance(schema, dict):
        return []
    own = list(schema.get("properties", {}).values())
    return own + [one for value in schema.values() for one in every_property(value)]


def test_every_field_is_documented() -> None:
    """A field without a sentence helps nobody in an editor."""
    properties = every_property(resources_schema()) + every_property(run_file_schema())
    assert len(properties) > 100
    assert not [one for one in properties if not one.get("description") and "const" not in one]
