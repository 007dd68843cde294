"""Everything that brings events into the application or acts on them in the background: subscriptions, input
bindings, outbox relays. One task per node runs them all.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import final

import trio

from meshnode.app import AppChannel
from meshnode.blocks.bindings import InputBindings
from meshnode.blocks.keeping import first_of
from meshnode.blocks.outbox import OutboxRelay
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
        relays: Sequence[OutboxRelay],
        declared: Sequence[Subscription],
        app: AppChannel,
        stop: trio.Event,
    ) -> None:
        self._subscriptions = subscriptions
        self._bindings = bindings
        self._relays = relays
        self._declared = declared
        self._app = app
        self._stop = stop
        self.app_ready = trio.Event()
        self.ended = trio.Event()

    async def run(self) -> None:
        """Outboxes at once; what the application gets once it is ready."""
        try:
            async with trio.open_nursery() as nursery:
                for relay in self._relays:
                    nursery.start_soon(relay.run)
                nursery.start_soon(self._deliver)
        finally:
            self.ended.set()

    async def _deliver(self) -> None:
        if not self._app.configured:
            if self._declared:
                names = ", ".join(one.name for one in self._declared)
                _log.warning("without --app-port nothing can be delivered: %s", names)
            return
        await first_of(self.app_ready.wait, self._stop.wait)
        if self._stop.is_set():
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._subscriptions.run, self._declared)
            nursery.start_soon(self._bindings.run)
