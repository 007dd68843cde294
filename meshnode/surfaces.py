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
from meshnode.blocks.bindings import InputBindings, OutputBindings
from meshnode.blocks.call import LiveCalls
from meshnode.blocks.configuration import ConfigurationBlock
from meshnode.blocks.conversation import Conversing
from meshnode.blocks.crypto import CryptoProviders, CryptoStreams, SubtleCrypto
from meshnode.blocks.inbound import Inbound
from meshnode.blocks.invocation import Invocation
from meshnode.blocks.lock import LockBlock
from meshnode.blocks.metadata import NodeMetadata, app_connection, records_of
from meshnode.blocks.outbox import Outboxes
from meshnode.blocks.proxy import Proxy
from meshnode.blocks.pubsub import Brokers, Publishing, Subscriptions
from meshnode.blocks.secrets import SecretsBlock
from meshnode.blocks.state import StateBlock
from meshnode.blocks.statequery import StateQuery
from meshnode.cluster import Peers
from meshnode.components import Opened
from meshnode.config.nodeoptions import NodeOptions, NodeStarted
from meshnode.interfaces import NameResolver
from meshnode.planning import Plan
from meshnode.security.tokens import TokenCheck
from meshnode.surroundings import Surroundings, limits_of
from meshnode.tables import Tables, build_tables
from meshnode.transport import AnyListener, KeepAlive, Server

__all__ = ["Parts", "Surfaces", "build_surfaces"]

_SERVICES = (
    "dapr.proto.runtime.v1.Dapr",
    "dapr.proto.internals.v1.ServiceInvocation",
    "meshnode.admin.v1.Admin",
)


@frozen
class Parts:
    """What has been opened. `opened` and `resiliencies` change when resources are reloaded."""

    plan: Plan
    internal_listeners: Sequence[AnyListener]
    internal_address: str
    opened: list[Opened]
    resolver: NameResolver
    peers: Peers
    app: AppChannel
    resiliencies: list[str]
    """Names of the Resiliency resources that hold now."""


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
    tables: Tables
    configuration: ConfigurationBlock


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
    tables: Tables


def build_surfaces(
    options: NodeOptions, parts: Parts, around: Surroundings, started: NodeStarted
) -> Surfaces:
    """Raises `ConfigError` for what only shows once components are open."""
    plan, live, health = parts.plan, LiveCalls(), Health()
    stopping, leaving = trio.Event(), trio.Event()
    blocks = _blocks(options, parts, around, live, leaving)
    metadata = _metadata(options, parts, blocks, stopping)
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
    return Surfaces(
        api=servers[0],
        internal=servers[1],
        inbound=blocks.inbound,
        health=health,
        live=live,
        state=node_state,
        stopping=stopping,
        leaving=leaving,
        tables=blocks.tables,
        configuration=blocks.configuration,
    )


def _metadata(options: NodeOptions, parts: Parts, blocks: _Blocks, stopping: trio.Event) -> NodeMetadata:
    return NodeMetadata(
        app_id=options.app_id,
        components=lambda: records_of(parts.opened),
        connection=app_connection(options),
        resiliencies=lambda: tuple(parts.resiliencies),
        subscriptions=lambda: blocks.subscriptions.active,
        features=parts.plan.features,
        shutdown=stopping.set,
    )


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
    plan, rng = parts.plan, around.rng
    invocation, proxy = _calling(options, parts, around)
    tables = build_tables(parts.opened, plan.policies, plan.configuration, options)
    brokers = Brokers(options.app_id, tables.brokers)
    publishing = Publishing(brokers, around.wall, rng)
    outboxes = Outboxes(tables.outboxes, tables.stores, brokers, publishing, live, rng, leaving)
    state = StateBlock(tables.stores, outboxes.writers)
    inward: dict[str, Any] = {
        "app": parts.app,
        "policies": plan.policies,
        "live": live,
        "rng": rng,
        "stop": leaving,
    }
    subscriptions = Subscriptions(brokers, publishing=publishing, wall=around.wall, **inward)
    output = OutputBindings(tables.bindings, rng)
    reading = InputBindings(tables.bindings, output=output, state=state, **inward)
    return _Blocks(
        invocation=invocation,
        proxy=proxy,
        state=state,
        publishing=publishing,
        subscriptions=subscriptions,
        bindings=output,
        secrets=SecretsBlock(tables.secrets),
        configuration=ConfigurationBlock(tables.configurations, rng, leaving),
        locks=LockBlock(tables.locks),
        conversing=Conversing(options.app_id, tables.models),
        crypto=CryptoProviders(tables.providers),
        inbound=Inbound(subscriptions, reading, outboxes, plan.subscriptions, parts.app, leaving),
        tables=tables,
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
