"""The outboxes of a node: a writer and a relay for each store that has one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import final

import trio
from attrs import frozen

from meshnode.blocks.call import LiveCalls
from meshnode.blocks.fleet import Fleet
from meshnode.blocks.outbox.relay import OutboxRelay
from meshnode.blocks.outbox.settings import OutboxSettings
from meshnode.blocks.outbox.writer import OutboxWriter
from meshnode.blocks.pubsub import Broker, Brokers, Publishing
from meshnode.blocks.state import Store

__all__ = ["Outboxes"]


@frozen
class _Basis:
    """What a writer and a relay are made for; they go on as long as it is the same."""

    settings: OutboxSettings
    store: Store
    broker: Broker | None
    internal: Broker | None


@final
class Outboxes:
    """`run` runs the relays until `stop`; `writers` are the stores' outboxes, by name.

    `settings` and `stores` may change, as the brokers may; `renew` then says so.
    """

    def __init__(
        self,
        settings: Mapping[str, OutboxSettings],
        stores: Mapping[str, Store],
        brokers: Brokers,
        publishing: Publishing,
        live: LiveCalls,
        rng: random.Random,
        stop: trio.Event,
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._brokers = brokers
        self._publishing = publishing
        self._live = live
        self._rng = rng
        self._fleet = Fleet(stop, OutboxRelay.run)
        self._made_for: dict[str, _Basis] = {}
        self._relays: dict[str, OutboxRelay] = {}
        self.writers: dict[str, OutboxWriter] = {}
        self.renew()

    async def run(self) -> None:
        await self._fleet.run()

    def renew(self) -> None:
        """Go by the settings, stores and brokers as they are now."""
        for name in self._relays.keys() - self._settings.keys():
            del self._relays[name], self.writers[name], self._made_for[name]
        for name, one in self._settings.items():
            get = self._brokers.get
            basis = _Basis(one, self._stores[name], get(one.pubsub), get(one.internal_pubsub))
            if self._made_for.get(name) != basis:
                self._made_for[name] = basis
                self._make(one)
        self._fleet.want(self._relays)

    async def settled(self, patience: float) -> None:
        """Return when nothing is under way any more that `renew` has ended; what takes longer than `patience`
        seconds is cancelled, which gives it back.
        """
        await self._fleet.settled(patience)

    def _make(self, one: OutboxSettings) -> None:
        store = self._stores[one.store]
        relay = OutboxRelay(one, store, self._brokers, self._publishing, self._live, self._relays)
        self._relays[one.store] = relay
        self.writers[one.store] = OutboxWriter(one, self._brokers, self._publishing, self._rng, relay.listens)
