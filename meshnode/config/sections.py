"""The sections of a Configuration, as they are written and as a node uses them. May import this package's
private modules only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from attrs import frozen

from meshnode.config._fields import line_field, yaml_field
from meshnode.config._scalars import Choice, Number

__all__ = [
    "API",
    "APILogging",
    "APIRule",
    "AccessControl",
    "AppPolicy",
    "Feature",
    "Logging",
    "MetricLabel",
    "MetricRule",
    "Metrics",
    "Operation",
    "Otel",
    "SecretsScope",
    "Tracing",
    "Zipkin",
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
