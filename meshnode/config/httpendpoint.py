"""The HTTPEndpoint resource, read so that it can be refused with a sentence: meshnode calls nothing by HTTP.

May import this package only.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from meshnode.config._fields import line_field, yaml_field
from meshnode.config._manifest import ObjectMeta
from meshnode.config._problems import Report
from meshnode.config._scalars import INVALID
from meshnode.config.component import MetadataItem
from meshnode.config.componentfile import Auth, NameValue, items_from
from meshnode.config.source import Source

__all__ = ["HTTPEndpoint", "HTTPEndpointManifest", "http_endpoint_from"]


@frozen
class HTTPEndpoint:
    name: str
    base_url: str
    namespace: str = ""
    headers: tuple[MetadataItem, ...] = ()
    auth_secret_store: str = ""
    scopes: tuple[str, ...] = ()
    source: Source = field(default=Source(), eq=False, repr=False)


@frozen(eq=False, repr=False)
class _Spec:
    base_url: str = yaml_field("baseUrl", "Where the endpoint is.")
    headers: tuple[NameValue, ...] = yaml_field("headers", "Headers of every request.", default=())
    client_tls: Any = yaml_field("clientTLS", "TLS towards the endpoint.", default=None)
    tls_root_ca: Any = yaml_field("tlsRootCA", "TLS towards the endpoint.", default=None)
    tls_client_cert: Any = yaml_field("tlsClientCert", "TLS towards the endpoint.", default=None)
    tls_client_key: Any = yaml_field("tlsClientKey", "TLS towards the endpoint.", default=None)
    tls_renegotiation: str = yaml_field("tlsRenegotiation", "TLS towards the endpoint.", default="")


@frozen(eq=False, repr=False)
class HTTPEndpointManifest:
    api_version: str = yaml_field("apiVersion", "Always dapr.io/v1alpha1.")
    kind: str = yaml_field("kind", "Always HTTPEndpoint.")
    metadata: ObjectMeta = yaml_field("metadata", "Name of the endpoint.")
    spec: _Spec = yaml_field("spec", "Where the endpoint is.")
    auth: Auth = yaml_field("auth", "Where secretKeyRef looks.", default=Auth())
    scopes: tuple[str, ...] = yaml_field("scopes", "App ids that may use it; all if empty.", default=())
    line: int = line_field()


def http_endpoint_from(manifest: HTTPEndpointManifest, report: Report) -> HTTPEndpoint:
    headers = items_from(manifest.spec.headers, "spec.headers", report)
    if headers is INVALID:
        return INVALID  # type: ignore[no-any-return]
    return HTTPEndpoint(
        name=manifest.metadata.name,
        base_url=manifest.spec.base_url,
        namespace=manifest.metadata.namespace,
        headers=headers,
        auth_secret_store=manifest.auth.secret_store,
        scopes=manifest.scopes,
        source=Source(report.file, manifest.line),
    )
