"""Names on the wire that both sides use, beside those of the generated contract.

The headers that begin with `meshnode-` are ours: whoever does not know them loses nothing but what they say.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ATTENTIVE",
    "BINDING_IN",
    "BINDING_OUT",
    "ETAG_FIELD",
    "GATHERED",
    "INSTANCE",
    "KINDS",
    "MAX_IN_FLIGHT",
    "PUBSUB",
    "QUERY",
    "SECRETS",
    "STATE",
    "TRANSACTIONS",
    "TTL",
]

INSTANCE: Final = "x-component-instance"
"""Header of every call: the component's name. One process may serve several components of its type."""

ATTENTIVE: Final = "meshnode-attentive"
"""Header of the response to Init: responses of streams begin once what is published will be delivered."""

GATHERED: Final = "meshnode-gathered"
"""Metadata of a topic: `SubscribeRequest.gathered`."""

MAX_IN_FLIGHT: Final = "maxInFlight"
TTL: Final = "ttlInSeconds"

ETAG_FIELD: Final = "etag"
"""The field of the one violation in the BadRequest that makes a status an etag's fault."""

_PACKAGE = "dapr.proto.components.v1."
STATE: Final = f"{_PACKAGE}StateStore"
QUERY: Final = f"{_PACKAGE}QueriableStateStore"
TRANSACTIONS: Final = f"{_PACKAGE}TransactionalStateStore"
PUBSUB: Final = f"{_PACKAGE}PubSub"
BINDING_IN: Final = f"{_PACKAGE}InputBinding"
BINDING_OUT: Final = f"{_PACKAGE}OutputBinding"
SECRETS: Final = f"{_PACKAGE}SecretStore"

KINDS: Final = {
    STATE: "state",
    PUBSUB: "pubsub",
    BINDING_IN: "bindings",
    BINDING_OUT: "bindings",
    SECRETS: "secretstores",
}
"""The services that make a component, and its kind."""
