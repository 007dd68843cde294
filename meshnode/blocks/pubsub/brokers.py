"""From opened components to the brokers of the pub/sub block: scopes, policies and topic names of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from attrs import field, frozen

from meshnode.blocks.pubsub.scopes import TopicScopes
from meshnode.components import Opened
from meshnode.errors import ErrorInfoDetail, InvalidArgument, MeshError, ResourceInfoDetail, Status
from meshnode.interfaces import PubSub, PubSubFeature
from meshnode.resiliency import Policies, Policy

__all__ = ["Broker", "Brokers", "build_brokers", "pubsub_error"]

_RESOURCE = "pubsub"
_KIND = "Pubsub"
_NAMESPACE = "{namespace}"


@frozen(eq=False)
class Broker:
    """One opened pub/sub component. `prefix` stands before each of its topics at the broker."""

    name: str
    driver: PubSub
    outbound: Policy
    inbound: Policy
    scopes: TopicScopes = field(factory=TopicScopes)
    prefix: str = ""

    @property
    def keeps_time(self) -> bool:
        """Whether the broker itself lets messages expire."""
        return PubSubFeature.MESSAGE_TTL in self.driver.features


@final
class Brokers:
    """All pub/sub components of one node, by name."""

    def __init__(self, app_id: str, brokers: Mapping[str, Broker]) -> None:
        self.app_id = app_id
        self._brokers = brokers

    def find(self, name: str) -> Broker:
        """The component of that name, or the error of the reference."""
        if not name:
            raise pubsub_error(Status.INVALID_ARGUMENT, "NAME_EMPTY", "pubsub name is empty", name)
        broker = self._brokers.get(name)
        if broker is None:
            raise pubsub_error(Status.INVALID_ARGUMENT, "NOT_FOUND", f"pubsub {name} is not found", name)
        return broker

    def get(self, name: str) -> Broker | None:
        return self._brokers.get(name)


def pubsub_error(
    status: Status, reason: str, message: str, name: str, metadata: Mapping[str, str] | None = None
) -> MeshError:
    """An error with Dapr's details: reasons of pub/sub begin with DAPR_PUBSUB_."""
    kind = InvalidArgument if status is Status.INVALID_ARGUMENT else MeshError
    return kind(
        message,
        ErrorInfoDetail(f"DAPR_PUBSUB_{reason}", metadata or {}),
        ResourceInfoDetail(_RESOURCE, name, description=message),
        status=status,
    )


def build_brokers(
    opened: Sequence[Opened], policies: Policies, app_id: str, namespace: str
) -> dict[str, Broker]:
    """The pub/sub components that were opened, by name."""
    brokers = {}
    for one in opened:
        if one.planned.kind != "pubsub" or one.instance is None:
            continue
        component = one.planned.component
        # As in Dapr, a component whose metadata speaks of the namespace has its topics in it.
        namespaced = any(_NAMESPACE in (item.value or "") for item in component.metadata)
        brokers[component.name] = Broker(
            component.name,
            one.instance,
            policies.for_component(component.name, _KIND),
            policies.for_component(component.name, _KIND, "inbound"),
            TopicScopes.of(one.reserved, app_id),
            namespace if namespaced else "",
        )
    return brokers
