"""Everything that brings events into the application or acts on them in the background: subscriptions, input
bindings, outboxes' relays. One task per node runs them all.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import final

import trio

from meshnode.app import AppChannel
from meshnode.blocks.bindings import InputBindings
from meshnode.blocks.keeping import first_of
from meshnode.blocks.outbox import Outboxes
from meshnode.blocks.pubsub import Subscriptions
from meshnode.config.subscription import Subscription

__all__ = ["Inbound"]

_log = logging.getLogger("meshnode.inbound")


@final
class Inbound:
    """`stop` is the signal to take nothing more; `ended` is set when all has been finished or given back."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        bindings: InputBindings,
        outboxes: Outboxes,
        declared: Sequence[Subscription],
        app: AppChannel,
        stop: trio.Event,
    ) -> None:
        self._subscriptions = subscriptions
        self._bindings = bindings
        self._outboxes = outboxes
        self._declared = declared
        self._app = app
        self._stop = stop
        self.app_ready = trio.Event()
        self.ended = trio.Event()

    async def run(self) -> None:
        """Outboxes at once; what the application gets once it is ready."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._outboxes.run)
                nursery.start_soon(self._deliver)
        finally:
            self.ended.set()

    def renew(self, declared: Sequence[Subscription]) -> None:
        """Go by these declared subscriptions, and by the components as they are now."""
        if declared != self._declared:
            self._warn(declared)
        self._declared = declared
        self._subscriptions.renew(declared)
        self._outboxes.renew()
        self._bindings.renew()

    async def settled(self, patience: float) -> None:
        """Return when nothing is under way any more that `renew` has ended, after `patience` seconds by
        cancelling it.
        """
        async with trio.open_nursery() as nursery:
            for one in (self._subscriptions, self._outboxes, self._bindings):
                nursery.start_soon(one.settled, patience)

    def _warn(self, declared: Sequence[Subscription]) -> None:
        if declared and not self._app.configured:
            names = ", ".join(one.name for one in declared)
            _log.warning("without --app-port nothing can be delivered: %s", names)

    async def _deliver(self) -> None:
        if not self._app.configured:
            self._warn(self._declared)
            return
        await first_of(self.app_ready.wait, self._stop.wait)
        if self._stop.is_set():
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._subscriptions.run, self._declared)
            nursery.start_soon(self._bindings.run)
