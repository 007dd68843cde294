"""The Configuration resource."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent, indent

import pytest

from meshnode.config import Configuration, load_resources
from meshnode.config.configuration import merged
from meshnode.config.loader import load_text
from meshnode.config.sections import AppPolicy, Operation
from meshnode.errors import ConfigError

WHOLE = """\
tracing:
  samplingRate: "0.5"
  stdout: true
  otel: {endpointAddress: "localhost:4317", isSecure: false, protocol: GRPC}
  zipkin: {endpointAddress: "http://${ZIPKIN_HOST}:9411/api/v2/spans"}
metric: {enabled: true}
metrics:
  enabled: false
  latencyDistributionBuckets: [1, 5]
  rules:
    - name: m
      labels: [{name: method, regex: {"orders/": orders/.+}}]
logging:
  apiLogging: {enabled: true, omitHealthChecks: true}
api:
  allowed: [{name: state, version: v1.0, protocol: grpc}]
  denied: [{name: invoke, version: v1}]
accessControl:
  defaultAction: deny
  trustDomain: public
  policies:
    - appId: app1
      defaultAction: Deny
      namespace: default
      operations:
        - {name: /op1, httpVerb: [POST, GET], action: allow}
nameResolution:
  component: hosts
  configuration:
    hosts: {b: "localhost:1", a: ["x:1", "y:2"]}
    updateInterval: 5s
    count: 007
secrets:
  scopes:
    - {storeName: vault, defaultAccess: deny, allowedSecrets: [a]}
    - {storeName: local, deniedSecrets: [b]}
components: {deny: [bindings.smtp, state.in-memory/v1]}
features: [{name: HotReload, enabled: true}]
workflow: {maxConcurrentWorkflowInvocations: 5}
mtls: {enabled: true, allowedClockSkew: 15m}
httpPipeline: {handlers: [{name: a, type: b}]}
wasm: {}
"""


def document(spec: str, name: str = "appconfig") -> str:
    head = f"apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {{name: {name}}}\nspec:\n"
    return head + indent(dedent(spec), "  ")


def load(spec: str, env: dict[str, str] | None = None) -> Configuration:
    (configuration,) = load_text(document(spec), "c.yaml", env=env or {}).configurations
    return configuration


def test_the_whole_of_it() -> None:
    found = load(WHOLE, {"ZIPKIN_HOST": "zipkin"})
    assert found.tracing is not None
    assert (found.tracing.sampling_rate, found.tracing.stdout) == (0.5, True)
    assert found.tracing.otel is not None
    assert (found.tracing.otel.protocol, found.tracing.otel.is_secure) == ("grpc", False)
    assert found.tracing.zipkin is not None
    assert found.tracing.zipkin.endpoint_address == "http://zipkin:9411/api/v2/spans"
    assert found.metrics is not None
    assert (found.metrics.enabled, found.metrics.latency_buckets) == (False, (1, 5))
    assert found.metrics.rules[0].labels[0].regex == {"orders/": "orders/.+"}
    assert found.api_logging
    assert found.api is not None
    assert [(rule.name, rule.protocol) for rule in (*found.api.allowed, *found.api.denied)] == [
        ("state", "grpc"),
        ("invoke", ""),
    ]
    assert found.access_control is not None
    assert found.access_control.policies == (
        AppPolicy(
            app_id="app1",
            default_action="deny",
            namespace="default",
            operations=(Operation(name="/op1", http_verbs=("POST", "GET"), action="allow"),),
        ),
    )
    assert found.features is not None
    assert found.features[0].name == "HotReload"
    assert found.workflow == {"maxConcurrentWorkflowInvocations": 5}
    assert found.mtls == {"enabled": True, "allowedClockSkew": "15m"}
    assert found.ignored == ("httpPipeline",)


def test_name_resolution_settings_are_text_as_written() -> None:
    naming = load(WHOLE).name_resolution
    assert naming is not None
    assert (naming.component, naming.version) == ("hosts", "v1")
    assert naming.configuration == {
        "hosts": '{"a":["x:1","y:2"],"b":"localhost:1"}',
        "updateInterval": "5s",
        "count": "007",
    }
    source = naming.source
    assert (source.file, source.line, source.line_of("spec.nameResolution.component")) == ("c.yaml", 32, 32)
    assert source.line_of("updateInterval") == 35


def test_secret_scopes_decide_as_dapr_does() -> None:
    vault, local = load(WHOLE).secrets or ()
    assert [vault.allows(name) for name in "ab"] == [True, False]
    assert [local.allows(name) for name in "ab"] == [True, False]


def test_denied_component_types() -> None:
    found = load(WHOLE)
    assert found.denies("bindings.smtp", "v7")
    assert found.denies("STATE.in-memory", "v1")
    assert not found.denies("state.in-memory", "v2")
    assert not Configuration().denies("bindings.smtp", "v1")


def test_a_variable_that_is_not_set_is_empty_and_noted() -> None:
    resources = load_text(document(WHOLE), "c.yaml", env={})
    (warning,) = resources.warnings
    assert (warning.line, warning.field) == (9, "spec.tracing.zipkin.endpointAddress")
    assert "ZIPKIN_HOST is not set" in warning.message
    untouched = load_text(document(WHOLE), "c.yaml").configurations[0].tracing
    assert untouched is not None
    assert untouched.zipkin is not None
    assert "${ZIPKIN_HOST}" in untouched.zipkin.endpoint_address


@pytest.mark.parametrize(
    ("spec", "where", "said"),
    [
        ("tracing: {samplingRate: '2'}", "spec.tracing.samplingRate", "expected a number from 0 to 1"),
        ("tracing: {sampleRate: 1}", "spec.tracing.sampleRate", 'did you mean "samplingRate"?'),
        ("tracing: {otel: {protocol: http/protobuf}}", "spec.tracing.otel.protocol", "allowed: grpc, http"),
        ("accessControl: {defaultAction: block}", "spec.accessControl.defaultAction", "allowed: allow, deny"),
        (
            "accessControl: {policies: [{appId: a, operations: [{name: x}]}]}",
            "spec.accessControl.policies[0].operations[0].action",
            "is missing",
        ),
        ("nameResolution: {configuration: {}}", "spec.nameResolution.component", "is missing"),
        (
            "nameResolution: {component: a, configuration: [b]}",
            "spec.nameResolution.configuration",
            "found a list",
        ),
        ("nameresolutions: {}", "spec.nameresolutions", 'did you mean "nameResolution"?'),
        ("features: {a: true}", "spec.features", "begin each item with a dash"),
        ("logging: {apiLogging: {enabled: 1}}", "spec.logging.apiLogging.enabled", "expected true or false"),
    ],
)
def test_one_mistake(spec: str, where: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(spec)
    (problem,) = caught.value.problems
    assert problem.field == where
    assert said in str(problem)
    assert (problem.file, problem.line) == ("c.yaml", 5)


def test_a_secret_store_has_one_scope() -> None:
    with pytest.raises(ConfigError, match=r'c\.yaml:8: .*storeName: "a" is given twice \(first on line 7\)'):
        load("secrets:\n  scopes:\n    - storeName: a\n    - storeName: a\n")


def test_later_sections_replace_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "c.yaml").write_text(
        document("tracing: {stdout: true}\nlogging: {apiLogging: {enabled: true}}")
    )
    (tmp_path / "last.conf").write_text(document("tracing: {samplingRate: $RATE}\nfeatures: []", "last"))
    resources = load_resources([tmp_path / "resources"], [tmp_path / "last.conf"], env={"RATE": "1"})
    result = merged(resources.configurations)
    assert result.name == "last"
    assert result.tracing is not None
    assert (result.tracing.stdout, result.tracing.sampling_rate) == (False, 1.0)
    assert result.api_logging
    assert result.source.file == f"{tmp_path}{os.sep}last.conf"
    assert merged([]) == Configuration()
