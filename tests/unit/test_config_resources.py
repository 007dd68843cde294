"""Resource files into models: every kind, and every way to get one wrong, all reported together."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.config import Resources, load_resources
from meshnode.config.loader import load_text
from meshnode.errors import ConfigError

COMPONENT = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
  namespace: prod
  labels: {a: b}
  annotations: {c: 1}
  creationTimestamp: null
auth:
  secretstore: vault
spec:
  type: state.redis
  version: v1
  ignoreErrors: true
  initTimeout: 1m30s
  metadata:
    - name: redisHost
      value: localhost:6379
    - name: redisDB
      value: 0
    - name: enableTLS
      value: yes
    - name: empty
      value:
    - name: structured
      value: {b: [1, true], a: x}
    - name: redisPassword
      secretKeyRef:
        name: redis
        key: password
    - name: redisUsername
      envRef: REDIS_USER
scopes: [order-processor, checkout]
"""


def load(text: str, *, lenient: bool = False) -> Resources:
    return load_text(dedent(text), "r.yaml", lenient=lenient)


def complaints(text: str, *, lenient: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, lenient=lenient)
    return [str(problem) for problem in caught.value.problems]


def document(kind: str, spec: str, version: str = "v1alpha1", name: str = "x") -> str:
    body = "\n".join("  " + line for line in dedent(spec).splitlines())
    return f"apiVersion: dapr.io/{version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{body}\n"


def test_component() -> None:
    (component,) = load(COMPONENT).components
    assert (component.name, component.namespace, component.type) == ("statestore", "prod", "state.redis")
    assert (component.version, component.ignore_errors, component.init_timeout) == ("v1", True, 90.0)
    assert component.auth_secret_store == "vault"
    assert component.scopes == ("order-processor", "checkout")
    assert [(item.name, item.value, item.line) for item in component.metadata] == [
        ("redisHost", "localhost:6379", 17),
        ("redisDB", "0", 19),
        ("enableTLS", "yes", 21),
        ("empty", "", 23),
        ("structured", '{"a":"x","b":[1,true]}', 25),
        ("redisPassword", None, 27),
        ("redisUsername", None, 31),
    ]
    password, user = component.get("REDISpassword"), component.get("redisUsername")
    assert password is not None
    assert password.secret_key_ref is not None
    assert (password.secret_key_ref.name, password.secret_key_ref.key) == ("redis", "password")
    assert user is not None
    assert user.env_ref == "REDIS_USER"
    assert component.get("nope") is None
    assert (component.source.file, component.source.line) == ("r.yaml", 1)
    assert component.source.lines["redisDB"] == 19


@pytest.mark.parametrize(
    "name", ["y", "on", "no", "null-store", "123", "1e3", "2020-01-01", "True", "ns.with.dots"]
)
def test_names_are_text(name: str) -> None:
    (component,) = load(document("Component", "type: state.in-memory", name=name)).components
    assert component.name == name
    assert (component.version, component.init_timeout) == ("v1", 5.0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a/b", "is not a name"),
        ("'..'", "is not a name"),
        ("a%b", "is not a name"),
        ("''", "is not a name"),
        ("~", "is missing"),
    ],
)
def test_names_that_are_none(name: str, said: str) -> None:
    (problem,) = complaints(document("Component", "type: state.redis", name=name))
    assert said in problem
    assert problem.startswith("r.yaml:3: metadata.name: ")


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Componnt\nmetadata: {name: a}\n---\n" + COMPONENT
    )
    (tmp_path / "2.yml").write_text(document("Component", "type: redis\nverison: v1"))
    (tmp_path / "3.yaml").write_bytes(b"a: 1\n\xff: 2")
    (tmp_path / "4.yaml").write_text("just text")
    (tmp_path / "ignored.txt").write_text("{")
    (tmp_path / "sub.yaml").mkdir()
    missing = tmp_path / "nope"
    with pytest.raises(ConfigError) as caught:
        load_resources([tmp_path], [missing])
    assert [str(problem).replace(f"{tmp_path}{os.sep}", "") for problem in caught.value.problems] == [
        '1.yaml:2: kind: unknown kind "Componnt" (did you mean "Component"? '
        "allowed: Component, Configuration, Resiliency, Subscription, HTTPEndpoint)",
        '2.yml:5: spec.type: "redis" is not a component type (write it like state.redis)',
        '2.yml:6: spec.verison: unknown field (did you mean "version"? '
        "allowed: type, version, ignoreErrors, metadata, initTimeout)",
        "3.yaml:2: is not UTF-8 text",
        '4.yaml:1: found "just text", expected a resource '
        "(a mapping with apiVersion, kind, metadata and spec)",
        "nope: no such file or folder",
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("version: v1", "r.yaml:5: spec.type: is missing (expected a component type such as state.redis)"),
        ("type: [a]", "r.yaml:5: spec.type: found a list, expected a component type such as state.redis"),
        (
            "type: a.b\nignoreErrors: maybe",
            'r.yaml:6: spec.ignoreErrors: found "maybe", expected true or false',
        ),
        (
            "type: a.b\nignoreErrors: 'true'",
            'r.yaml:6: spec.ignoreErrors: found "true", expected true or false (remove the quotes)',
        ),
        (
            "type: a.b\ninitTimeout: 5",
            'r.yaml:6: spec.initTimeout: "5" is not a duration; a unit is missing '
            "(write it like 5s, 200ms or 1m30s)",
        ),
        (
            "type: a.b\ninitTimeout: -5s",
            'r.yaml:6: spec.initTimeout: "-5s" is negative (a duration of 0 or more)',
        ),
        (
            "type: a.b\nmetadata: {a: b}",
            "r.yaml:6: spec.metadata: found a mapping, expected a list, each item a mapping "
            "(begin each item with a dash)",
        ),
        (
            "type: a.b\nmetadata:\n- a",
            'r.yaml:7: spec.metadata[0]: found "a", expected a mapping '
            "(with the fields name, value, secretKeyRef, envRef)",
        ),
        (
            "type: a.b\nmetadata:\n- name: a",
            'r.yaml:7: spec.metadata[0]: "a" has none of value, secretKeyRef and envRef (give exactly one)',
        ),
        (
            "type: a.b\nmetadata:\n- {name: a, value: b, envRef: C}",
            'r.yaml:7: spec.metadata[0]: "a" has more than one of value, secretKeyRef and envRef '
            "(give exactly one)",
        ),
        (
            "type: a.b\nmetadata:\n- {name: a, value: b}\n- {name: A, value: c}",
            'r.yaml:8: spec.metadata[1]: "A" is given twice (first on line 7)',
        ),
        (
            "type: a.b\nmetadata:\n- {name: a, secretKeyRef: {key: k}}",
            "r.yaml:7: spec.metadata[0].secretKeyRef.name: is missing (expected text)",
        ),
        (
            "type: a.b\nmetadata:\n- {name: a, valeu: b}",
            'r.yaml:7: spec.metadata[0].valeu: unknown field (did you mean "value"? '
            "allowed: name, value, secretKeyRef, envRef)",
        ),
        ("type: a.b\nType: c.d", "r.yaml:6: spec.Type: is given twice, first on line 5"),
    ],
)
def test_a_component_with_one_mistake(spec: str, expected: str) -> None:
    assert expected in complaints(document("Component", spec))


def test_component_names_are_unique_in_a_namespace() -> None:
    one, two = document("Component", "type: a.b"), document("Component", "type: c.d")
    assert complaints(f"{one}---\n{two}") == [
        'r.yaml:7: metadata.name: a Component "x" exists already (first in r.yaml:1)'
    ]
    other = two.replace("{name: x}", "{name: x, namespace: other}")
    assert len(load(f"{one}---\n{other}").components) == 2


def test_lenient_lets_unknown_fields_pass_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    text = document("Component", "type: a.b\ncolour: red\n")
    with caplog.at_level(logging.WARNING, "meshnode.config"):
        resources = load(text, lenient=True)
    assert [component.type for component in resources.components] == ["a.b"]
    assert [(one.line, one.field) for one in resources.warnings] == [(6, "spec.colour")]
    assert "spec.colour: unknown field" in caplog.text
    assert len(complaints(text.replace("a.b", "[]"), lenient=True)) == 1


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("kind: Component", ["r.yaml:1: apiVersion: is missing (expected dapr.io/v1alpha1)"]),
        (
            "apiVersion: dapr.io/v1alpha1",
            [
                "r.yaml:1: kind: is missing "
                "(expected Component, Configuration, Resiliency, Subscription, HTTPEndpoint)"
            ],
        ),
        (
            "apiVersion: dapr.io/v1\nkind: Component",
            [
                'r.yaml:1: apiVersion: found "dapr.io/v1" '
                '(did you mean "dapr.io/v1alpha1"? allowed: dapr.io/v1alpha1)'
            ],
        ),
        (
            "apiVersion: dpar.io/v1alpha1\nkind: Component",
            [
                'r.yaml:1: apiVersion: found "dpar.io/v1alpha1" '
                '(did you mean "dapr.io/v1alpha1"? allowed: dapr.io/v1alpha1)'
            ],
        ),
        (
            "apiVersion: v1\nkind: Component",
            ['r.yaml:1: apiVersion: found "v1" (allowed: dapr.io/v1alpha1)'],
        ),
        (
            "apiVersion: dapr.io/v1alpha1\nkind: MCPServer",
            [
                "r.yaml:2: kind: meshnode does not have Dapr's MCPServer yet "
                "(take the resource out of the folder)"
            ],
        ),
    ],
)
def test_what_a_document_is(head: str, expected: list[str]) -> None:
    assert complaints(head + "\nmetadata: {name: x}\n") == expected


def test_resources_of_others_are_skipped_with_a_warning() -> None:
    resources = load("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: b}\n---\n" + COMPONENT)
    assert len(resources.components) == 1
    assert [one.message for one in resources.warnings] == ["v1 Secret is not a resource of Dapr; skipped"]


def test_which_are_meant_for_an_application() -> None:
    text = "---\n".join(
        document("Component", "type: a.b", name=name) + more
        for name, more in [("all", ""), ("scoped", "scopes: [one]\n"), ("other", "scopes: [two]\n")]
    )
    text += "---\n" + document("Component", "type: a.b").replace("{name: x}", "{name: away, namespace: prod}")
    resources = load(text)
    assert [one.name for one in resources.for_app("one").components] == ["all", "scoped", "away"]
    assert [one.name for one in resources.for_app("one", "default").components] == ["all", "scoped"]
    assert [one.name for one in resources.for_app("three", "prod").components] == ["all", "away"]


def test_http_endpoint_is_read() -> None:
    (endpoint,) = load(
        document(
            "HTTPEndpoint", "baseUrl: https://example.com\nheaders:\n- {name: Accept-Language, value: en}"
        )
    ).http_endpoints
    assert (endpoint.name, endpoint.base_url) == ("x", "https://example.com")
    assert endpoint.headers[0].value == "en"


SUBSCRIPTION = """\
pubsubname: pubsub
topic: orders
routes:
  rules:
    - match: event.type == "order.v2"
      path: /v2
  default: /v1
deadLetterTopic: dead
bulkSubscribe: {enabled: true, maxMessagesCount: 10, maxAwaitDurationMs: 500}
metadata: {rawPayload: true}
"""


def test_subscription_in_both_versions() -> None:
    (new,) = load(document("Subscription", SUBSCRIPTION, "v2alpha1")).subscriptions
    assert (new.pubsub_name, new.topic, new.default_path, new.dead_letter_topic) == (
        "pubsub",
        "orders",
        "/v1",
        "dead",
    )
    assert [(rule.match, rule.path) for rule in new.rules] == [('event.type == "order.v2"', "/v2")]
    assert new.bulk is not None
    assert (new.bulk.enabled, new.bulk.max_messages, new.bulk.max_await_ms) == (True, 10, 500)
    assert new.metadata == {"rawPayload": "true"}
    (old,) = load(document("Subscription", "pubsubname: p\ntopic: t\nroute: /orders")).subscriptions
    assert (old.default_path, old.rules) == ("/orders", ())
    wrong = complaints(document("Subscription", SUBSCRIPTION))
    assert any("spec.routes: unknown field (did you mean" in one for one in wrong)
    assert any("spec.route: is missing" in one for one in wrong)


def test_subscription_with_a_wrong_match() -> None:
    (problem,) = complaints(document("Subscription", SUBSCRIPTION.replace("==", "="), "v2alpha1"))
    assert problem.startswith('r.yaml:9: spec.routes.rules[0].match: "event.type = ')
    assert "is not a CEL expression: column 12" in problem


pieces = st.sampled_from(
    COMPONENT.splitlines() + document("Subscription", SUBSCRIPTION, "v2alpha1").splitlines()
)


@given(
    st.lists(
        pieces | st.sampled_from(["---", "  - []", "a: {", "? x", "- - -", "metadata:", "spec: ~"]),
        max_size=25,
    )
)
def test_no_file_brings_the_loader_down(lines: list[str]) -> None:
    try:
        resources = load_text("\n".join(lines), "r.yaml")
    except ConfigError as error:
        found = error.problems
    else:
        found = ()
        assert isinstance(resources, Resources)
    assert all(problem.file == "r.yaml" and problem.line >= 1 and problem.message for problem in found)
