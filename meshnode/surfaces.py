"""What a node serves: its blocks, the APIs over them and the two servers that carry these, built from parts
that are open already. Beside `node` at the composition root; does no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio
from attrs import frozen

from meshnode.api.admin import AdminApi, NodeFacts, NodeState
from meshnode.api.dapr import DaprApi
from meshnode.api.details import encode_details
from meshnode.api.health import Health
from meshnode.api.internal import InternalApi
from meshnode.api.reflection import Reflection
from meshnode.api.service import Gate, guarded
from meshnode.app import AppChannel
from meshnode.blocks.bindings import InputBindings, OutputBindings, build_bindings
from meshnode.blocks.call import LiveCalls
from meshnode.blocks.configuration import ConfigurationBlock, build_configurations
from meshnode.blocks.conversation import Conversing, build_models
from meshnode.blocks.crypto import CryptoProviders, CryptoStreams, SubtleCrypto, build_providers
from meshnode.blocks.inbound import Inbound
from meshnode.blocks.invocation import Invocation
from meshnode.blocks.lock import LockBlock, build_locks
from meshnode.blocks.metadata import NodeMetadata, app_connection, records_of
from meshnode.blocks.outbox import OutboxRelay, OutboxWriter, outbox_settings
from meshnode.blocks.proxy import Proxy
from meshnode.blocks.pubsub import Brokers, Publishing, Subscriptions, build_brokers
from meshnode.blocks.secrets import SecretsBlock, build_secret_stores
from meshnode.blocks.state import StateBlock
from meshnode.blocks.statequery import StateQuery
from meshnode.blocks.stores import build_stores
from meshnode.cluster import Peers
from meshnode.components import ComponentHost, Opened, Planned
from meshnode.config import Configuration
from meshnode.config.nodeoptions import NodeOptions, NodeStarted
from meshnode.config.subscription import Subscription
from meshnode.defaults import Naming
from meshnode.interfaces import NameResolver
from meshnode.resiliency import Policies
from meshnode.security.access import AccessPolicy, ApiRules
from meshnode.security.tokens import TokenCheck
from meshnode.surroundings import Surroundings, limits_of
from meshnode.transport import AnyListener, KeepAlive, Server

__all__ = ["Parts", "Plan", "Surfaces", "build_surfaces"]

_SERVICES = (
    "dapr.proto.runtime.v1.Dapr",
    "dapr.proto.internals.v1.ServiceInvocation",
    "meshnode.admin.v1.Admin",
)


@frozen
class Plan:
    """What is known of a node before anything is opened."""

    configuration: Configuration
    api_rules: ApiRules
    access: AccessPolicy
    resiliencies: tuple[str, ...]
    policies: Policies
    naming: Naming
    host: ComponentHost
    components: Sequence[Planned]
    subscriptions: Sequence[Subscription]
    notes: list[str]

    @property
    def needs_asyncio(self) -> bool:
        return self.naming.driver.needs_asyncio or any(one.driver.needs_asyncio for one in self.components)


@frozen
class Parts:
    """What has been opened."""

    plan: Plan
    internal_listeners: Sequence[AnyListener]
    internal_address: str
    opened: Sequence[Opened]
    resolver: NameResolver
    peers: Peers
    app: AppChannel


@frozen
class Surfaces:
    """`leaving` is set when the node takes nothing more; `stopping` when it has been asked to end."""

    api: Server
    internal: Server
    inbound: Inbound
    health: Health
    live: LiveCalls
    state: NodeState
    stopping: trio.Event
    leaving: trio.Event


@frozen
class _Blocks:
    """The blocks that the application's API is made of."""

    invocation: Invocation
    proxy: Proxy
    state: StateBlock
    publishing: Publishing
    subscriptions: Subscriptions
    bindings: OutputBindings
    secrets: SecretsBlock
    configuration: ConfigurationBlock
    locks: LockBlock
    conversing: Conversing
    crypto: CryptoProviders
    inbound: Inbound


def build_surfaces(
    options: NodeOptions, parts: Parts, around: Surroundings, started: NodeStarted
) -> Surfaces:
    """Raises `ConfigError` for what only shows once components are open."""
    plan, live, health = parts.plan, LiveCalls(), Health()
    stopping, leaving = trio.Event(), trio.Event()
    blocks = _blocks(options, parts, around, live, leaving)
    metadata = NodeMetadata(
        app_id=options.app_id,
        components=records_of(parts.opened),
        connection=app_connection(options),
        resiliencies=plan.resiliencies,
        subscriptions=lambda: blocks.subscriptions.active,
        features=(),
        shutdown=stopping.set,
    )
    api_logging = plan.configuration.api_logging if options.api_logging is None else options.api_logging
    gate = Gate(live, TokenCheck(options.api_token or ""), rules=plan.api_rules, api_logging=api_logging)
    inner_gate = Gate(live, TokenCheck(""))
    node_state = NodeState(stopping)
    servers: list[Server] = []
    admin = AdminApi(
        facts=NodeFacts(
            app_id=options.app_id,
            namespace=options.namespace,
            grpc_address=started.grpc_address,
            internal_address=started.internal_address,
            state=node_state,
            connections=lambda: sum(server.connections for server in servers),
            started_at=around.wall(),
            health_checked=options.app_health is not None,
        ),
        metadata=metadata,
        app=parts.app,
        policies=plan.policies,
        live=live,
        tail=around.tail,
        gate=gate,
    )
    dapr = _dapr_api(blocks, metadata, gate)
    served = [dapr.handlers(), admin.handlers(), health.handlers()]
    limits = limits_of(options)
    internal = InternalApi(blocks.invocation, inner_gate, max_message=limits.message_size, access=plan.access)
    common: dict[str, Any] = {"limits": limits, "keepalive": KeepAlive(), "encode_details": encode_details}
    to_peers = guarded(blocks.proxy.from_application, gate)
    to_app = guarded(blocks.proxy.from_peer, inner_gate)
    servers.append(Server([*served, Reflection(served).handlers()], fallback=to_peers, **common))
    servers.append(Server([internal.handlers(), health.handlers()], fallback=to_app, **common))
    for service in _SERVICES:
        health.set(service, True)
    return Surfaces(servers[0], servers[1], blocks.inbound, health, live, node_state, stopping, leaving)


def _dapr_api(blocks: _Blocks, metadata: NodeMetadata, gate: Gate) -> DaprApi:
    return DaprApi(
        invocation=blocks.invocation,
        state=blocks.state,
        query=StateQuery(blocks.state),
        publishing=blocks.publishing,
        subscriptions=blocks.subscriptions,
        bindings=blocks.bindings,
        secrets=blocks.secrets,
        configuration=blocks.configuration,
        conversing=blocks.conversing,
        locks=blocks.locks,
        crypto=CryptoStreams(blocks.crypto),
        subtle=SubtleCrypto(blocks.crypto),
        metadata=metadata,
        gate=gate,
    )


def _blocks(
    options: NodeOptions, parts: Parts, around: Surroundings, live: LiveCalls, leaving: trio.Event
) -> _Blocks:
    plan = parts.plan
    invocation, proxy = _calling(options, parts, around)
    stores = build_stores(parts.opened, plan.policies, options.app_id, options.namespace)
    brokers = Brokers(
        options.app_id, build_brokers(parts.opened, plan.policies, options.app_id, options.namespace)
    )
    publishing = Publishing(brokers, around.wall, around.rng)
    outboxes = outbox_settings(parts.opened, options.app_id, options.namespace)
    relays: dict[str, OutboxRelay] = {}
    writers: dict[str, OutboxWriter] = {}
    for one in outboxes:
        relay = OutboxRelay(one, stores[one.store], brokers, publishing, live, leaving, relays)
        relays[one.store] = relay
        writers[one.store] = OutboxWriter(one, brokers, publishing, around.rng, relay.listens)
    state = StateBlock(options.app_id, stores, writers)
    subscriptions = Subscriptions(
        brokers,
        app=parts.app,
        policies=plan.policies,
        publishing=publishing,
        live=live,
        wall=around.wall,
        rng=around.rng,
        stop=leaving,
    )
    bindings = build_bindings(parts.opened, plan.policies)
    output = OutputBindings(bindings, around.rng)
    reading = InputBindings(
        bindings,
        app=parts.app,
        policies=plan.policies,
        output=output,
        state=state,
        live=live,
        rng=around.rng,
        stop=leaving,
    )
    secrets = SecretsBlock(build_secret_stores(parts.opened, plan.policies, plan.configuration.secrets or ()))
    inbound = Inbound(subscriptions, reading, tuple(relays.values()), plan.subscriptions, parts.app, leaving)
    locks = LockBlock(build_locks(parts.opened, plan.policies, options.app_id))
    conversing = Conversing(options.app_id, build_models(parts.opened, plan.policies))
    settings = build_configurations(parts.opened, plan.policies)
    configuration = ConfigurationBlock(settings, around.rng, leaving)
    return _Blocks(
        invocation,
        proxy,
        state,
        publishing,
        subscriptions,
        output,
        secrets,
        configuration,
        locks,
        conversing,
        build_providers(parts.opened, plan.policies),
        inbound,
    )


def _calling(options: NodeOptions, parts: Parts, around: Surroundings) -> tuple[Invocation, Proxy]:
    """The two blocks through which applications call each other."""
    common: dict[str, Any] = {
        "app_id": options.app_id,
        "namespace": options.namespace,
        "app": parts.app,
        "peers": parts.peers,
        "policies": parts.plan.policies,
        "rng": around.rng,
    }
    return Invocation(**common, host=parts.plan.naming.host), Proxy(**common, access=parts.plan.access)
