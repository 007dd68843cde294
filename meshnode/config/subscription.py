"""The Subscription resource as a node uses it. Its manifests are in `subscriptionfile`. Imports attrs and
this package's values only: on the start-up path.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from meshnode.config.source import Source

__all__ = ["BulkSubscribe", "Rule", "Subscription"]


@frozen
class BulkSubscribe:
    """Several messages in one delivery; 0 leaves a number to the node."""

    enabled: bool
    max_messages: int = 0
    max_await_ms: int = 0


@frozen
class Rule:
    """An event that `match` (CEL over `event`) holds for goes to `path`; an empty `match` holds always."""

    match: str
    path: str


@frozen
class Subscription:
    name: str
    pubsub_name: str
    topic: str
    rules: tuple[Rule, ...] = ()
    default_path: str = ""
    namespace: str = ""
    metadata: Mapping[str, str] = field(factory=dict)
    dead_letter_topic: str = ""
    bulk: BulkSubscribe | None = None
    scopes: tuple[str, ...] = ()
    source: Source = field(default=Source(), eq=False, repr=False)
