"""The Subscription resource as it is written, both of its versions, and the way from there to the model. May
import this package only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from attrs import frozen

from meshnode.config._fields import line_field, yaml_field
from meshnode.config._manifest import ObjectMeta
from meshnode.config._problems import Report
from meshnode.config._scalars import Int, Text
from meshnode.config.cel import compile_program
from meshnode.config.source import Source
from meshnode.config.subscription import BulkSubscribe, Rule, Subscription

__all__ = ["SubscriptionManifestV1", "SubscriptionManifestV2", "subscription_from"]


@frozen(eq=False, repr=False)
class _Bulk:
    enabled: bool = yaml_field("enabled", "Deliver several messages at once.")
    max_messages: Annotated[int, Int(0)] = yaml_field(
        "maxMessagesCount", "Most messages in one delivery.", default=0
    )
    max_await_ms: Annotated[int, Int(0)] = yaml_field(
        "maxAwaitDurationMs", "Longest wait for a full delivery.", default=0
    )


@frozen(eq=False, repr=False)
class _Rule:
    match: Annotated[str, Text("a CEL expression", compile_program)] = yaml_field(
        "match", "CEL expression over the event.", default=""
    )
    path: str = yaml_field("path", "Where a matching event is delivered.")


@frozen(eq=False, repr=False)
class _Routes:
    rules: tuple[_Rule, ...] = yaml_field(
        "rules", "Tried in order; the first that matches is taken.", default=()
    )
    default: str = yaml_field("default", "Where events go that no rule matches.", default="")


@frozen(eq=False, repr=False)
class _Spec:
    pubsub_name: str = yaml_field("pubsubname", "Name of the pub/sub component.")
    topic: str = yaml_field("topic", "Topic to subscribe to.")
    metadata: Mapping[str, str] = yaml_field("metadata", "Settings of the subscription.", default={})
    dead_letter_topic: str = yaml_field("deadLetterTopic", "Where undeliverable messages go.", default="")
    bulk: _Bulk | None = yaml_field("bulkSubscribe", "Several messages in one delivery.", default=None)


@frozen(eq=False, repr=False)
class _SpecV1(_Spec):
    route: str = yaml_field("route", "Where events are delivered.")


@frozen(eq=False, repr=False)
class _SpecV2(_Spec):
    routes: _Routes = yaml_field("routes", "Where events are delivered, by rules.")


@frozen(eq=False, repr=False)
class _Manifest:
    api_version: str = yaml_field("apiVersion", "dapr.io/v2alpha1, or dapr.io/v1alpha1 with a single route.")
    kind: str = yaml_field("kind", "Always Subscription.")
    metadata: ObjectMeta = yaml_field("metadata", "Name of the subscription.")
    scopes: tuple[str, ...] = yaml_field("scopes", "App ids that subscribe; all if empty.", default=())
    line: int = line_field()


@frozen(eq=False, repr=False)
class SubscriptionManifestV1(_Manifest):
    spec: _SpecV1 = yaml_field("spec", "What is subscribed to.")


@frozen(eq=False, repr=False)
class SubscriptionManifestV2(_Manifest):
    spec: _SpecV2 = yaml_field("spec", "What is subscribed to.")


def subscription_from(
    manifest: SubscriptionManifestV1 | SubscriptionManifestV2, report: Report
) -> Subscription:
    spec = manifest.spec
    bulk = spec.bulk
    routes = _Routes(default=spec.route) if isinstance(spec, _SpecV1) else spec.routes
    return Subscription(
        name=manifest.metadata.name,
        namespace=manifest.metadata.namespace,
        pubsub_name=spec.pubsub_name,
        topic=spec.topic,
        rules=tuple(Rule(one.match, one.path) for one in routes.rules),
        default_path=routes.default,
        metadata=spec.metadata,
        dead_letter_topic=spec.dead_letter_topic,
        bulk=BulkSubscribe(bulk.enabled, bulk.max_messages, bulk.max_await_ms) if bulk else None,
        scopes=manifest.scopes,
        source=Source(report.file, manifest.line),
    )
