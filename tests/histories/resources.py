"""The nodes' YAML. Intervals are short, so that what was abandoned comes back within a second or two."""

from __future__ import annotations

from pathlib import Path

from histories.plan import Plan

__all__ = ["PUBSUB", "TOPIC", "outbox_resources", "pubsub_resources", "reader_resources"]

PUBSUB, TOPIC = "messages", "orders"

_COMPONENT = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name}}}
spec:
  type: {type}
  version: v1
  metadata:
{metadata}
"""

_POLICY = f"""
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {{name: inbound}}
spec:
  policies:
    timeouts: {{short: 400ms}}
    retries:
      few: {{policy: constant, duration: 50ms, maxRetries: 2}}
  targets:
    components:
      {PUBSUB}:
        inbound: {{timeout: short, retry: few}}
"""


def component(name: str, kind: str, metadata: dict[str, str]) -> str:
    lines = [f"    - {{name: {key}, value: '{value}'}}" for key, value in metadata.items()]
    return _COMPONENT.format(name=name, type=kind, metadata="\n".join(lines))


def pubsub_resources(plan: Plan, *, redis_port: int, database: Path) -> str:
    """One node's. On Redis each node has its own way to the server."""
    if plan.broker == "redis":
        metadata = {
            "redisHost": f"127.0.0.1:{redis_port}",
            "redeliverInterval": f"{plan.redeliver}ms",
            "processingTimeout": f"{plan.processing}ms",
            "concurrency": str(plan.concurrency),
        }
    else:
        metadata = {
            "connectionString": str(database),
            "redeliverInterval": f"{plan.redeliver}ms",
            "leaseDuration": "1s",
        }
    text = component(PUBSUB, f"pubsub.{plan.broker}", metadata)
    return text + (_POLICY if plan.policy else "")


def reader_resources(database: Path) -> str:
    """Of the node whose application gets the outbox's events."""
    metadata = {"connectionString": str(database), "redeliverInterval": "200ms", "leaseDuration": "1s"}
    return component(PUBSUB, "pubsub.sqlite", metadata)


def outbox_resources(store: str, state: Path, database: Path) -> str:
    """Of the node whose transactions become events."""
    outbox = {
        "connectionString": str(state),
        "outboxPublishPubsub": PUBSUB,
        "outboxPublishTopic": TOPIC,
        "outboxDiscardWhenMissingState": "true",
    }
    return f"{reader_resources(database)}---{component(store, 'state.sqlite', outbox)}"
