"""What a component's metadata may hold besides its driver's own: what the node itself looks at, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["NODE_METADATA", "node_rows"]

NODE_METADATA: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "state": {
        "keyPrefix": (
            "appid",
            "What keys begin with: appid, name (the component's), namespace, none, or a text of one's own.",
        ),
        "primaryEncryptionKey": ("", "Encrypts values; 32, 48 or 64 hexadecimal digits, by secretKeyRef."),
        "secondaryEncryptionKey": ("", "Decrypts what an earlier primary key encrypted; by secretKeyRef."),
        "actorStateStore": ("false", "Keeps the state of actors; without effect, for actors are absent."),
        "outboxPublishPubsub": ("", "Pub/sub component that gets an event for each transaction."),
        "outboxPublishTopic": ("", "Topic of these events."),
        "outboxPubsub": ("", "Pub/sub component of internal messages; outboxPublishPubsub if empty."),
        "outboxInternalTopic": (
            "",
            "Topic of internal messages; made of app id and topic if empty.",
        ),
        "outboxDiscardWhenMissingState": ("false", "Drop an event whose transaction is not found."),
    },
    "lock": {
        "keyPrefix": ("appid", "What resources begin with: appid, name, none, or a text of one's own."),
    },
    "pubsub": {
        "allowedTopics": ("", "Topics that may be used; all if empty. With commas, as below."),
        "protectedTopics": ("", "Topics for applications that a scope below names for them."),
        "publishingScopes": ("", "Who may publish where: app1=topic1,topic2;app2=topic3."),
        "subscriptionScopes": ("", "Who may subscribe to what: app1=topic1,topic2;app2=topic3."),
    },
    "bindings": {
        "direction": ("", "input, output, or both with a comma; what the driver has if empty."),
        "route": ("", "Where an application that speaks HTTP gets events; without effect here."),
    },
}
"""For each kind: name -> default and meaning."""


def node_rows(type_: str) -> list[dict[str, Any]]:
    """Rows as those of a driver's own metadata."""
    secrets = {"primaryEncryptionKey", "secondaryEncryptionKey"}
    return [
        {
            "name": name,
            "type": "bool" if default == "false" else "text",
            "required": False,
            "default": default,
            "secret": name in secrets,
            "allowed": [],
            "aliases": [],
            "doc": doc,
        }
        for name, (default, doc) in NODE_METADATA.get(type_.partition(".")[0].lower(), {}).items()
    ]
