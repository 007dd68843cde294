"""GetMetadata, SetMetadata and Shutdown: what an application may know of, note on and ask of its node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

from attrs import frozen

from meshnode import __version__
from meshnode.blocks.pubsub import TopicSubscription
from meshnode.components import Opened
from meshnode.config.nodeoptions import NodeOptions
from meshnode.errors import BadRequestDetail, InvalidArgument, MeshError, Status
from meshnode.interfaces import InputBinding, OutputBinding
from meshnode.resiliency import go_duration
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["ComponentRecord", "NodeMetadata", "app_connection", "records_of"]

_MAX_EXTENDED = 256
"""Entries that SetMetadata may add; a client that invents keys for ever must not grow the node."""


@frozen
class ComponentRecord:
    """A component as the node reports it; `state` is `ready` or `failed`, the latter with `message`."""

    name: str
    type: str
    version: str
    capabilities: Sequence[str] = ()
    state: str = "ready"
    message: str = ""


@final
class NodeMetadata:
    """One node's description of itself."""

    def __init__(
        self,
        *,
        app_id: str,
        components: Callable[[], Sequence[ComponentRecord]],
        connection: runtime.AppConnectionProperties | None,
        resiliencies: Callable[[], Sequence[str]],
        subscriptions: Callable[[], Sequence[TopicSubscription]],
        features: Sequence[str],
        shutdown: Callable[[], None],
    ) -> None:
        self._app_id = app_id
        self._components = components
        self._connection = connection
        self._resiliencies = resiliencies
        self._subscriptions = subscriptions
        self._features = tuple(features)
        self._shutdown = shutdown
        self._extended = {"daprRuntimeVersion": f"meshnode {__version__}"}

    @property
    def components(self) -> Sequence[ComponentRecord]:
        """What there is now, failed ones included."""
        return self._components()

    def describe(self) -> runtime.GetMetadataResponse:
        listed = [
            runtime.RegisteredComponents(
                name=one.name, type=one.type, version=one.version, capabilities=list(one.capabilities)
            )
            for one in self.components
            if one.state == "ready"
        ]
        return runtime.GetMetadataResponse(
            id=self._app_id,
            registered_components=listed,
            extended_metadata=dict(self._extended),
            app_connection_properties=self._connection,
            runtime_version=f"meshnode {__version__}",
            enabled_features=list(self._features),
            actor_runtime=runtime.ActorRuntime(
                runtime_status=runtime.ActorRuntimeActorRuntimeStatus.DISABLED
            ),
            subscriptions=[_described(one) for one in self._subscriptions()],
            resiliencies=[runtime.MetadataResiliency(name=name) for name in self._resiliencies()],
        )

    def set(self, key: str, value: str) -> None:
        """Raises `InvalidArgument` for an empty key, RESOURCE_EXHAUSTED when there are too many."""
        if not key:
            raise InvalidArgument(
                "metadata key must not be empty", BadRequestDetail([("key", "must not be empty")])
            )
        if key not in self._extended and len(self._extended) >= _MAX_EXTENDED:
            raise MeshError(
                f"a node keeps at most {_MAX_EXTENDED} metadata entries", status=Status.RESOURCE_EXHAUSTED
            )
        self._extended[key] = value

    def request_shutdown(self) -> None:
        """Begin the same graceful shutdown that SIGTERM begins."""
        self._shutdown()


def records_of(opened: Sequence[Opened]) -> list[ComponentRecord]:
    """The records of components after their opening."""
    records = []
    for one in opened:
        component = one.planned.component
        capabilities = _capabilities(one.instance)
        state = "failed" if one.instance is None else "ready"
        records.append(
            ComponentRecord(component.name, component.type, component.version, capabilities, state, one.error)
        )
    return records


def _capabilities(instance: Any) -> list[str]:
    features: frozenset[Any] = getattr(instance, "features", frozenset())
    directions = {"INPUT_BINDING": InputBinding, "OUTPUT_BINDING": OutputBinding}
    named = [name for name, kind in directions.items() if isinstance(instance, kind)]
    return [*named, *sorted(feature.value for feature in features)]


def _described(one: TopicSubscription) -> runtime.PubsubSubscription:
    rules = [runtime.PubsubSubscriptionRule(match=rule.match, path=rule.path) for rule in one.routes.rules]
    if one.routes.default is not None:
        rules.append(runtime.PubsubSubscriptionRule(path=one.routes.default))
    return runtime.PubsubSubscription(
        pubsub_name=one.broker.name,
        topic=one.topic,
        metadata=dict(one.metadata),
        rules=runtime.PubsubSubscriptionRules(rules=rules),
        dead_letter_topic=one.dead_letter_topic,
        type=runtime.PubsubSubscriptionType[one.kind.name],
    )


def app_connection(options: NodeOptions) -> runtime.AppConnectionProperties | None:
    """How the node reaches its application; None without one."""
    if options.app_port is None:
        return None
    health = None
    if options.app_health is not None:
        health = runtime.AppConnectionHealthProperties(
            health_probe_interval=go_duration(options.app_health.interval),
            health_probe_timeout=go_duration(options.app_health.timeout),
            health_threshold=options.app_health.threshold,
        )
    return runtime.AppConnectionProperties(
        port=options.app_port,
        protocol="grpcs" if options.app_tls else "grpc",
        channel_address=options.app_channel_address,
        max_concurrency=options.app_max_concurrency or 0,
        health=health,
    )
