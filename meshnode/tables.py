"""The components of a node as its blocks know them: a table for each block, by component name.

A block holds the very dictionary, so when components come and go the next call sees what there is then; a
call that has looked its component up goes on with that. Beside `node` at the composition root; does no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from attrs import fields, frozen

from meshnode.blocks.bindings import Binding, build_bindings
from meshnode.blocks.configuration import Configurations, build_configurations
from meshnode.blocks.conversation import Model, build_models
from meshnode.blocks.crypto import Provider, build_providers
from meshnode.blocks.lock import Locks, build_locks
from meshnode.blocks.outbox import OutboxSettings, outbox_settings
from meshnode.blocks.pubsub import Broker, build_brokers
from meshnode.blocks.secrets import ScopedStore, build_secret_stores
from meshnode.blocks.state import Store
from meshnode.blocks.stores import build_stores
from meshnode.components import Opened
from meshnode.config import Configuration
from meshnode.config.nodeoptions import NodeOptions
from meshnode.resiliency import Policies

__all__ = ["Tables", "build_tables"]


@frozen
class Tables:
    """One dictionary a kind of component."""

    stores: dict[str, Store]
    outboxes: dict[str, OutboxSettings]
    brokers: dict[str, Broker]
    bindings: dict[str, Binding]
    secrets: dict[str, ScopedStore]
    configurations: dict[str, Configurations]
    locks: dict[str, Locks]
    models: dict[str, Model]
    providers: dict[str, Provider]

    def adopt(self, other: Tables, changed: Collection[str]) -> None:
        """Have what `other` has. An entry of a component that has not changed stays the very same object."""
        for one in fields(Tables):
            mine: dict[str, Any] = getattr(self, one.name)
            theirs: dict[str, Any] = getattr(other, one.name)
            kept = {name: value for name, value in mine.items() if name in theirs and name not in changed}
            mine.clear()
            mine.update(theirs | kept)


def build_tables(
    opened: Sequence[Opened], policies: Policies, configuration: Configuration, options: NodeOptions
) -> Tables:
    """Raises `ConfigError` for what only shows once components are open."""
    app_id, namespace = options.app_id, options.namespace
    return Tables(
        stores=build_stores(opened, policies, app_id, namespace),
        outboxes=outbox_settings(opened, app_id, namespace),
        brokers=build_brokers(opened, policies, app_id, namespace),
        bindings=build_bindings(opened, policies),
        secrets=build_secret_stores(opened, policies, configuration.secrets or ()),
        configurations=build_configurations(opened, policies),
        locks=build_locks(opened, policies, app_id),
        models=build_models(opened, policies),
        providers=build_providers(opened, policies),
    )
