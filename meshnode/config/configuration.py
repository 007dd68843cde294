"""The Configuration resource: settings of a node. May import this package only.

Sections that concern HTTP or a control plane are accepted and kept as they are. `$NAME` and `${NAME}` in
values are replaced from the environment before they are read, as Dapr does. Of several Configurations a later
one's sections replace an earlier one's (`merged`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, final

import attrs
from attrs import field, frozen

from meshnode.config._manifest import ObjectMeta
from meshnode.config._problems import Report
from meshnode.config._scalars import INVALID, Choice, Number, json_text, wrong_type
from meshnode.config._shapes import line_field, lines_field, yaml_field
from meshnode.config._yaml import Node, Table
from meshnode.config.source import Places, Source

__all__ = [
    "API",
    "AccessControl",
    "AppPolicy",
    "Configuration",
    "ConfigurationManifest",
    "Feature",
    "Logging",
    "Metrics",
    "NameResolution",
    "Operation",
    "SecretsScope",
    "Tracing",
    "configuration_from",
    "merged",
]

_Access = Annotated[str, Choice(("allow", "deny"))]
_Free = Any


@frozen
class Otel:
    endpoint_address: str = yaml_field(
        "endpointAddress", "Address of the OpenTelemetry collector.", default=""
    )
    is_secure: bool = yaml_field("isSecure", "Whether the connection is encrypted.", default=True)
    protocol: Annotated[str, Choice(("grpc", "http"))] = yaml_field(
        "protocol", "grpc or http.", default="grpc"
    )
    headers: _Free = yaml_field("headers", "Headers of each request.", default=None)
    timeout: _Free = yaml_field("timeout", "Time for one request.", default=None)


@frozen
class Zipkin:
    endpoint_address: str = yaml_field("endpointAddress", "URL of the Zipkin server.", default="")


@frozen
class Tracing:
    """`sampling_rate` None leaves Dapr's default, one in 10,000."""

    sampling_rate: Annotated[float | None, Number(0, 1, quoted=True)] = yaml_field(
        "samplingRate", "Share of traces that are recorded, from 0 to 1.", default=None
    )
    stdout: bool = yaml_field("stdout", "Write spans to the standard output.", default=False)
    otel: Otel | None = yaml_field("otel", "Send traces to an OpenTelemetry collector.", default=None)
    zipkin: Zipkin | None = yaml_field("zipkin", "Send traces to a Zipkin server.", default=None)


@frozen
class MetricLabel:
    name: str = yaml_field("name", "Name of the label.")
    regex: Mapping[str, str] = yaml_field("regex", "Replacement -> regular expression.", default={})


@frozen
class MetricRule:
    name: str = yaml_field("name", "Name of the metric.")
    labels: tuple[MetricLabel, ...] = yaml_field("labels", "Labels to rewrite.", default=())


@frozen
class Metrics:
    enabled: bool = yaml_field("enabled", "Whether metrics are collected.", default=True)
    rules: tuple[MetricRule, ...] = yaml_field("rules", "Labels to rewrite.", default=())
    latency_buckets: tuple[int, ...] = yaml_field(
        "latencyDistributionBuckets", "Bucket bounds in milliseconds.", default=()
    )
    record_error_codes: bool = yaml_field("recordErrorCodes", "Count errors by code.", default=False)
    http: _Free = yaml_field("http", "Concerns HTTP; not looked at.", default=None)
    workflow: _Free = yaml_field("workflow", "Workflow metrics.", default=None)


@frozen
class APIRule:
    name: str = yaml_field("name", "Name of an API, such as state or invoke.")
    version: str = yaml_field("version", "Version of the API, such as v1.0.", default="")
    protocol: Annotated[str, Choice(("http", "grpc"))] = yaml_field("protocol", "http or grpc.", default="")


@frozen
class API:
    allowed: tuple[APIRule, ...] = yaml_field(
        "allowed", "APIs the application may use; all if empty.", default=()
    )
    denied: tuple[APIRule, ...] = yaml_field("denied", "APIs the application may not use.", default=())


@frozen
class Operation:
    name: str = yaml_field("name", "Method, with * as the last part for any.")
    http_verbs: tuple[str, ...] = yaml_field("httpVerb", "HTTP verbs; * for any.", default=())
    action: _Access = yaml_field("action", "allow or deny.")


@frozen
class AppPolicy:
    app_id: str = yaml_field("appId", "Calling application.")
    default_action: _Access = yaml_field(
        "defaultAction", "What holds where no operation matches.", default=""
    )
    trust_domain: str = yaml_field("trustDomain", "Trust domain of the caller.", default="")
    namespace: str = yaml_field("namespace", "Namespace of the caller.", default="")
    operations: tuple[Operation, ...] = yaml_field("operations", "Rules by method.", default=())


@frozen
class AccessControl:
    default_action: _Access = yaml_field("defaultAction", "What holds where no policy matches.", default="")
    trust_domain: str = yaml_field("trustDomain", "Trust domain of this node.", default="")
    policies: tuple[AppPolicy, ...] = yaml_field("policies", "Rules by calling application.", default=())


@final
class _TextsShape:
    """A mapping of scalars as written; anything else becomes JSON text. Read as (name, text, line)."""

    expected = "a mapping"

    def read(self, node: Node, where: str, report: Report) -> Any:
        if not isinstance(node, Table):
            return wrong_type(node, self.expected, where, report)
        return tuple((key.text, json_text(value), key.line) for key, value in node.entries)

    def schema(self) -> dict[str, Any]:
        return {"type": "object"}


_PLACES = Places(
    "spec.nameResolution.component", "spec.nameResolution.version", "spec.nameResolution.configuration"
)


@frozen
class NameResolution:
    """`configuration` is for the driver; a value that is no scalar stands there as JSON."""

    component: str
    version: str = "v1"
    configuration: Mapping[str, str] = field(factory=dict)
    source: Source = field(default=Source(places=_PLACES), eq=False, repr=False)


@frozen(eq=False, repr=False)
class _NameResolution:
    component: str = yaml_field("component", "Name resolution driver, such as sqlite.")
    version: str = yaml_field("version", "Version of the driver.", default="v1")
    configuration: Annotated[tuple[tuple[str, str, int], ...], _TextsShape()] = yaml_field(
        "configuration", "Settings of the driver.", default=()
    )
    line: int = line_field()
    lines: Mapping[str, int] = lines_field()

    def result(self, file: str) -> NameResolution:
        lines = {f"spec.nameResolution.{name}": line for name, line in self.lines.items()}
        lines |= {name: line for name, _, line in self.configuration}
        settings = {name: text for name, text, _ in self.configuration}
        return NameResolution(self.component, self.version, settings, Source(file, self.line, lines, _PLACES))


@frozen
class SecretsScope:
    store_name: str = yaml_field("storeName", "Name of the secret store component.")
    default_access: _Access = yaml_field("defaultAccess", "What holds for secrets not listed.", default="")
    allowed_secrets: tuple[str, ...] = yaml_field(
        "allowedSecrets", "Secrets the application may read.", default=()
    )
    denied_secrets: tuple[str, ...] = yaml_field(
        "deniedSecrets", "Secrets the application may not read.", default=()
    )
    line: int = line_field()

    def allows(self, name: str) -> bool:
        """Dapr's rule: a list of allowed secrets decides alone; else the denied ones; else the default, which
        is to allow.
        """
        if self.allowed_secrets:
            return name in self.allowed_secrets
        return name not in self.denied_secrets and self.default_access != "deny"


@frozen(eq=False, repr=False)
class _Secrets:
    scopes: tuple[SecretsScope, ...] = yaml_field(
        "scopes", "Which secrets the application may read, by store.", default=()
    )


@frozen
class Feature:
    name: str = yaml_field("name", "Name of the feature.")
    enabled: bool = yaml_field("enabled", "Whether it is on.")


@frozen
class APILogging:
    enabled: bool = yaml_field("enabled", "Log every call of the API.", default=False)
    obfuscate_urls: bool = yaml_field("obfuscateURLs", "Concerns HTTP; not looked at.", default=False)
    omit_health_checks: bool = yaml_field("omitHealthChecks", "Leave out health checks.", default=False)


@frozen
class Logging:
    api: APILogging = yaml_field("apiLogging", "Logging of API calls.", default=APILogging())


@frozen(eq=False, repr=False)
class _Components:
    deny: tuple[str, ...] = yaml_field("deny", "Component types that may not be opened.", default=())


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


@frozen(eq=False, repr=False)
class _Spec:
    tracing: Tracing | None = yaml_field("tracing", "Distributed tracing.", default=None)
    metric: Metrics | None = yaml_field("metric", "Metrics, by its older name.", default=None)
    metrics: Metrics | None = yaml_field("metrics", "Metrics.", default=None)
    logging: Logging | None = yaml_field("logging", "Logging.", default=None)
    api: API | None = yaml_field("api", "Which APIs the application may use.", default=None)
    access_control: AccessControl | None = yaml_field(
        "accessControl", "Who may call this application.", default=None
    )
    name_resolution: _NameResolution | None = yaml_field(
        "nameResolution", "How other nodes are found.", default=None
    )
    secrets: _Secrets | None = yaml_field("secrets", "Which secrets the application may read.", default=None)
    features: tuple[Feature, ...] | None = yaml_field("features", "Preview features.", default=None)
    components: _Components | None = yaml_field(
        "components", "Component types that may not be opened.", default=None
    )
    workflow: _Free = yaml_field("workflow", "Workflow engine.", default=None)
    mtls: _Free = yaml_field("mtls", "Mutual TLS between nodes.", default=None)
    http_pipeline: _Free = yaml_field("httpPipeline", "Concerns HTTP; not looked at.", default=None)
    app_http_pipeline: _Free = yaml_field("appHttpPipeline", "Concerns HTTP; not looked at.", default=None)
    wasm: _Free = yaml_field("wasm", "Concerns WebAssembly components; not looked at.", default=None)


@frozen(eq=False, repr=False)
class ConfigurationManifest:
    api_version: str = yaml_field("apiVersion", "Always dapr.io/v1alpha1.")
    kind: str = yaml_field("kind", "Always Configuration.")
    metadata: ObjectMeta = yaml_field("metadata", "Name of the configuration.")
    spec: _Spec = yaml_field("spec", "The settings.", default=_Spec())
    line: int = line_field()


def configuration_from(manifest: ConfigurationManifest, report: Report) -> Configuration:
    spec = manifest.spec
    scopes = spec.secrets.scopes if spec.secrets is not None else None
    if not _distinct(scopes or (), report):
        return INVALID  # type: ignore[no-any-return]
    unused = {
        "httpPipeline": spec.http_pipeline,
        "appHttpPipeline": spec.app_http_pipeline,
        "wasm": spec.wasm,
    }
    return Configuration(
        name=manifest.metadata.name,
        namespace=manifest.metadata.namespace,
        tracing=spec.tracing,
        metrics=spec.metrics or spec.metric,
        logging=spec.logging,
        api=spec.api,
        access_control=spec.access_control,
        name_resolution=spec.name_resolution.result(report.file) if spec.name_resolution else None,
        secrets=scopes,
        features=spec.features,
        denied_components=spec.components.deny if spec.components is not None else None,
        workflow=spec.workflow,
        mtls=spec.mtls,
        ignored=tuple(name for name, value in unused.items() if value),
        source=Source(report.file, manifest.line),
    )


def _distinct(scopes: Sequence[SecretsScope], report: Report) -> bool:
    seen: dict[str, int] = {}
    for index, scope in enumerate(scopes):
        first = seen.setdefault(scope.store_name, scope.line)
        if first != scope.line:
            where = f"spec.secrets.scopes[{index}].storeName"
            report.problem(
                scope.line, where, f'"{scope.store_name}" is given twice', f"first on line {first}"
            )
            return False
    return True


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
