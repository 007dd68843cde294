"""What resources and flags ask for and this node does not do: said in its log, never passed over in silence.

May import config and what lies below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import evolve

from meshnode.config import Configuration, Resources
from meshnode.config.nodeoptions import NodeOptions

__all__ = ["HOT_RELOAD", "remarks", "without_denied"]

HOT_RELOAD = "HotReload"
"""The feature that a Configuration can switch off; in Dapr, where it is a preview, on."""


def without_denied(resources: Resources, configuration: Configuration, notes: list[str]) -> Resources:
    """The resources without the components whose type the Configuration denies."""
    kept = []
    for one in resources.components:
        if configuration.denies(one.type, one.version):
            notes.append(f"component {one.name} is left out: components.deny names {one.type}/{one.version}")
        else:
            kept.append(one)
    return evolve(resources, components=tuple(kept))


def remarks(options: NodeOptions, configuration: Configuration) -> list[str]:
    """One sentence for each thing that is accepted and has no effect."""
    return [*_of_configuration(configuration), *_of_flags(options)]


def _of_configuration(configuration: Configuration) -> Iterator[str]:
    tracing, metrics, access = configuration.tracing, configuration.metrics, configuration.access_control
    if tracing is not None and (tracing.otel is not None or tracing.zipkin is not None or tracing.stdout):
        yield "tracing: traceparent is passed on, but no spans are exported yet"
    if metrics is not None and metrics.rules:
        yield "metrics: rules have no effect, for metrics are not exported yet"
    if access is not None and access.policies:
        yield (
            "accessControl: callers have no identity without mTLS, which is not built yet, so rules for"
            " single applications match nobody and the default action decides"
        )
    if isinstance(configuration.mtls, Mapping) and configuration.mtls.get("enabled") is True:
        yield "mtls: encryption between nodes is not built yet; calls to other nodes go in the clear"
    for feature in configuration.features or ():
        if feature.enabled and feature.name != HOT_RELOAD:
            yield f"features: this node knows no feature {feature.name}"
    if configuration.workflow:
        yield "workflow: has no effect until the node has that block"
    for name in configuration.ignored:
        yield f"{name}: has no effect, for the node speaks gRPC only"


def _of_flags(options: NodeOptions) -> Iterator[str]:
    if options.unused_flags:
        yield f"accepted, but used only by blocks that are not built yet: {', '.join(options.unused_flags)}"
