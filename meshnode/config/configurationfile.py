"""The Configuration resource as it is written, and the way from there to the settings. May import this
package only.

Sections that concern HTTP or a control plane are accepted and kept as they are. `$NAME` and `${NAME}` in
values are replaced from the environment before they are read, as Dapr does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, final

from attrs import frozen

from meshnode.config._fields import line_field, lines_field, yaml_field
from meshnode.config._manifest import ObjectMeta
from meshnode.config._problems import Report
from meshnode.config._scalars import INVALID, json_text, wrong_type
from meshnode.config._yaml import Node, Table
from meshnode.config.configuration import NAME_RESOLUTION_PLACES, Configuration, NameResolution
from meshnode.config.sections import API, AccessControl, Feature, Logging, Metrics, SecretsScope, Tracing
from meshnode.config.source import Source

__all__ = ["ConfigurationManifest", "configuration_from"]

_Free = Any


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
        return NameResolution(
            self.component, self.version, settings, Source(file, self.line, lines, NAME_RESOLUTION_PLACES)
        )


@frozen(eq=False, repr=False)
class _Secrets:
    scopes: tuple[SecretsScope, ...] = yaml_field(
        "scopes", "Which secrets the application may read, by store.", default=()
    )


@frozen(eq=False, repr=False)
class _Components:
    deny: tuple[str, ...] = yaml_field("deny", "Component types that may not be opened.", default=())


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
