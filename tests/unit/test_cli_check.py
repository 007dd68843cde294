"""`meshnode components check`: what a node would find wrong, without a node."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshnode.cli._app import main
from meshnode.cli._nodemetadata import NODE_METADATA
from meshnode.components import RESERVED_METADATA

Check = Callable[..., tuple[int, list[dict[str, Any]]]]

EVERY_KIND = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: secrets}
spec:
  type: secretstores.local.env
  version: v1
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec:
  type: state.redis
  version: v1
  metadata:
    - {name: redisHost, envRef: REDIS_HOST}
    - {name: redisPassword, secretKeyRef: {name: redis, key: password}}
    - {name: keyPrefix, value: name}
auth: {secretStore: secrets}
scopes: [orders]
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: policies}
spec:
  policies: {retries: {often: {policy: constant, duration: 1s}}}
  targets: {components: {store: {outbound: {retry: often}}}}
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: config}
spec:
  nameResolution: {component: sqlite}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec: {pubsubname: pubsub, topic: orders, routes: {default: /orders}}
"""


def component(name: str, type_: str, *metadata: str, tail: str = "") -> str:
    items = "".join(f"\n    - {item}" for item in metadata)
    return (
        f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\n"
        f"spec:\n  type: {type_}\n  version: v1\n  metadata:{items or ' []'}\n{tail}"
    )


def resource(kind: str, spec: str, tail: str = "", version: str = "v1alpha1") -> str:
    head = f"apiVersion: dapr.io/{version}\nkind: {kind}\nmetadata: {{name: a{kind.lower()}}}\n"
    return f"{head}spec: {spec}\n{tail}"


AUTH = "auth: {secretStore: vault}"
HTTP = resource("HTTPEndpoint", "{baseUrl: http://x}")


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Writes the resources into a folder's file and checks the folder, or with `file` the file alone."""
    folder = tmp_path / "resources"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)

    def run(*texts: str, file: bool = False, flags: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]]]:
        (folder / "all.yaml").write_text("\n---\n".join(texts))
        what = "resources/all.yaml" if file else "resources"
        code = main(["components", "check", what, "-o", "json", *flags])
        problems = json.loads(capsys.readouterr().out)
        for one in problems:
            assert one["file"] == "resources/all.yaml"
            assert one["line"] > 0
            assert one["field"]
        return code, problems

    return run


def test_right_ones_of_every_kind(check: Check) -> None:
    assert check(EVERY_KIND) == (0, [])
    assert check(EVERY_KIND, flags=("--app-id", "orders")) == (0, [])


@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [
        (component("a", "state.sqlit"), 5, "spec.type", 'did you mean "state.sqlite"?'),
        (component("a", "stat.redis"), 5, "spec.type", 'did you mean "state'),
        (
            component("a", "state.sqlite", "{name: url, value: x}", "{name: tabelName, value: y}"),
            9, "spec.metadata.tabelName", 'did you mean "tableName"?',
        ),
        (component("a", "state.sqlite"), 1, "spec.metadata.connectionString", "is missing"),
        (
            component("a", "state.sqlite", "{name: url, value: x}", "{name: timeout, value: soon}"),
            9, "spec.metadata.timeout", "a duration such as",
        ),
        (
            component("a", "state.sqlite", "{name: url}"),
            8, "spec.metadata[0]", "give exactly one",
        ),
        (
            component("a", "state.sqlite", "{name: url, envRef: A, value: b}"),
            8, "spec.metadata[0]", "give exactly one",
        ),
        (
            component("a", "state.sqlite", "{name: url, secretKeyRef: {key: b}}"),
            8, "spec.metadata[0].secretKeyRef.name", "is missing",
        ),
        (
            component("a", "state.sqlite", "{name: url, envRef: [a]}"),
            8, "spec.metadata[0].envRef", "",
        ),
        (
            component("a", "state.sqlite", "{name: url, envRef: DAPR_API_TOKEN}"),
            8, "spec.metadata.url", "choose another name",
        ),
        (
            component("a", "state.sqlite", "{name: url, secretKeyRef: {name: b}}"),
            8, "spec.metadata.url", "set auth.secretStore",
        ),
        (
            component("a", "state.sqlite", "{name: url, secretKeyRef: {name: b}}", tail=AUTH),
            8, "spec.metadata.url", "add a component of type secretstores",
        ),
        (resource("Resiliency", "{policies: {timeouts: {t: 5q}}}"), 4, "spec.policies.timeouts.t", "5s"),
        (
            resource("Resiliency", "{targets: {apps: {a: {retry: ghost}}}}"),
            4, "spec.targets.apps.a.retry", "allowed: DaprBuiltIn",
        ),
        (
            resource("Resiliency", "{policies: {circuitBreakers: {b: {trip: consecutiveFailures > }}}}"),
            4, "spec.policies.circuitBreakers.b.trip", "",
        ),
        (
            resource("Configuration", "{api: {denied: [{name: sate, protocol: grpc}]}}"),
            1, "spec.api", 'did you mean "state"?',
        ),
        (
            resource("Configuration", "{nameResolution: {component: sqlit}}"),
            4, "spec.nameResolution.component", "nameresolution.sqlite",
        ),
        (
            resource("Configuration", "{nameResolution: {component: mdns, configuration: {adress: x}}}"),
            4, "spec.nameResolution.configuration.adress", "unknown",
        ),
        (resource("Subscription", "{topic: t, route: /t}"), 4, "spec.pubsubname", "is missing"),
        (
            resource(
                "Subscription",
                '{pubsubname: p, topic: t, routes: {rules: [{match: "a ==", path: /a}]}}',
                version="v2alpha1",
            ),
            4, "spec.routes.rules[0].match", "",
        ),
        (HTTP, 1, "HTTPEndpoint ahttpendpoint", "remove it"),
        (HTTP + "scopes: [a]", 1, "HTTPEndpoint ahttpendpoint", "remove it"),
        (resource("Componet", "{}"), 2, "kind", 'did you mean "Component"?'),
        ("apiVersion: dapr.io/v1\nkind: Component\n", 1, "apiVersion", "dapr.io/v1alpha1"),
    ],
)  # fmt: skip
def test_mistakes(check: Check, text: str, line: int, field: str, words: str) -> None:
    code, found = check(text)
    assert code == 2
    (one,) = found
    assert (one["line"], one["field"]) == (line, field)
    assert one["message"]
    assert words in f"{one['message']} ({one['remedy']})"


def test_all_mistakes_come_at_once_and_each_once(check: Check) -> None:
    code, found = check(
        component("a", "state.sqlite", "{name: url, envRef: A, value: b}"),
        component("b", "state.sqlit", tail="scopes: [one, two]"),
        resource("Resiliency", "{policies: {timeouts: {t: 5q}}}"),
        resource("HTTPEndpoint", "{baseUrl: http://x}", "scopes: [one, two]"),
    )
    assert code == 2
    assert [one["field"] for one in found] == [
        "spec.metadata[0]", "spec.policies.timeouts.t", "HTTPEndpoint ahttpendpoint", "spec.type",
    ]  # fmt: skip


def test_values_behind_references_are_not_asked_for(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("URL", raising=False)
    text = component("a", "state.sqlite", "{name: url, envRef: URL}", "{name: timeout, envRef: TIMEOUT}")
    assert check(text) == (0, [])


def test_a_file_alone_need_not_hold_the_secret_store(check: Check) -> None:
    text = component(
        "a", "state.sqlite", "{name: url, secretKeyRef: {name: b}}", tail="auth: {secretStore: vault}"
    )
    assert check(text, file=True) == (0, [])
    assert check(text)[0] == 2
    assert check(text, component("vault", "secretstores.local.env")) == (0, [])
    elsewhere = component("vault", "secretstores.local.env", tail="scopes: [other]")
    assert check(text, elsewhere)[0] == 2
    near = component("vaults", "secretstores.local.env")
    assert check(text, near)[1][0]["remedy"].startswith('did you mean "vaults"?')


def test_an_app_id_looks_at_what_is_meant_for_it(check: Check) -> None:
    scoped = component("a", "state.sqlit", tail="scopes: [one]")
    assert check(scoped)[0] == 2
    assert check(scoped, flags=("--app-id", "one"))[0] == 2
    assert check(scoped, flags=("--app-id", "two")) == (0, [])
    # Of what cannot be read nobody knows for whom it is: no node would start.
    unread = component("a", "state.sqlite", "{name: url}", tail="scopes: [one]")
    assert check(unread, flags=("--app-id", "two"))[0] == 2


def test_policies_of_one_resource_hold_in_another_of_the_same_application(check: Check) -> None:
    policies = resource("Resiliency", "{policies: {timeouts: {short: 1s}}}", "scopes: [one]")
    targets = resource("Resiliency", "{targets: {apps: {x: {timeout: short}}}}").replace("aresil", "bresil")
    assert check(policies, targets + "scopes: [one]") == (0, [])


def test_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(component("a", "state.in-memory"))
    assert main(["components", "check", str(file)]) == 0
    assert capsys.readouterr() == ("", "1 resource, nothing wrong\n")
    mtls = resource("Configuration", "{mtls: {enabled: true}, components: {deny: [state.in-memory]}}")
    file.write_text(component("a", "state.in-memory") + "---\n" + mtls)
    assert main(["components", "check", str(file)]) == 0
    said = capsys.readouterr().err
    assert "note: mtls: encryption between nodes is not built yet" in said
    assert "note: component a is left out: components.deny names state.in-memory/v1" in said
    assert said.endswith("2 resources, nothing wrong\n")
    assert main(["components", "check", str(tmp_path / "ghost.yaml")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_lenient(check: Check, caplog: pytest.LogCaptureFixture) -> None:
    text = component("a", "state.in-memory", tail="spek: 1")
    assert check(text)[0] == 2
    with caplog.at_level(logging.ERROR):
        assert check(text, flags=("--lenient",)) == (0, [])


def test_what_the_node_itself_looks_at_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert {name for names in NODE_METADATA.values() for name in names} == RESERVED_METADATA
    assert main(["components", "describe", "state.sqlite", "-o", "json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in described["node_metadata"]} == set(NODE_METADATA["state"])
    for row in (*described["metadata"], *described["node_metadata"]):
        assert {"name", "type", "default", "required", "secret", "doc"} < row.keys()
    assert main(["components", "describe", "state.sqlite"]) == 0
    shown = capsys.readouterr().out
    for word in ("connectionString", "SECRET", "keyPrefix", "primaryEncryptionKey", "timeoutInSeconds"):
        assert word in shown
