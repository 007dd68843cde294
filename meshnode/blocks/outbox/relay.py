"""The outbox's other side: internal messages become events once their transactions have committed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar, final

import trio

from meshnode.blocks.call import Call, LiveCalls
from meshnode.blocks.keeping import keep_going, unless_stopped
from meshnode.blocks.outbox.marks import Mark, bury, finish, look
from meshnode.blocks.outbox.settings import OutboxSettings
from meshnode.blocks.outbox.writer import OVERRIDES, STORE
from meshnode.blocks.pubsub.brokers import Broker, Brokers
from meshnode.blocks.pubsub.contenttypes import is_cloud_event
from meshnode.blocks.pubsub.envelope import Origin, wrap
from meshnode.blocks.pubsub.events import Event, event_of
from meshnode.blocks.pubsub.publishing import Publishing
from meshnode.blocks.scoped import scoped
from meshnode.blocks.state import Store
from meshnode.errors import MeshError
from meshnode.interfaces import Message, Outcome, PublishRequest, SubscribeRequest
from meshnode.resiliency import unwrap

__all__ = ["OutboxRelay"]

T = TypeVar("T")

_log = logging.getLogger("meshnode.outbox")

_PATIENCE = 10.0
"""Seconds a marker may take to appear before its message is discarded or given back, as in Dapr."""
_MAX_IN_FLIGHT = 100
"""Messages that wait for their transactions side by side: the places of those that never end are not to be
missed.
"""
_MOST_WAITED_FOR = 10_000
_MADE_ANEW = frozenset({"id", "topic", "pubsubname", "datacontenttype"})
_FIRST_LOOK, _LONGEST_PAUSE = 0.05, 3.0


@final
class OutboxRelay:
    """The relay of one store's outbox; `others` are those of the node's stores by name, this one among them.
    Once `stop` is set it takes no further message.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        store: Store,
        brokers: Brokers,
        publishing: Publishing,
        live: LiveCalls,
        others: Mapping[str, OutboxRelay],
    ) -> None:
        self._settings = settings
        self._store = store
        self._brokers = brokers
        self._publishing = publishing
        self._live = live
        self.stop = trio.Event()
        self._others = others
        self._waited_for: OrderedDict[str, None] = OrderedDict()
        self._tried = trio.Event()
        self._subscribed = False

    async def run(self) -> None:
        """Relay until `stop`."""
        try:
            await keep_going(f"outbox of state store {self._settings.store}", self._consume, self.stop)
        finally:
            self._tried.set()

    async def listens(self) -> bool:
        """Whether the relay has ever subscribed; waits until it has tried. Before that nothing may be
        announced: there are brokers that keep no message of a topic that nobody has subscribed to.
        """
        await self._tried.wait()
        return self._subscribed

    async def _consume(self, *, task_status: trio.TaskStatus[None]) -> None:
        broker = self._brokers.find(self._settings.internal_pubsub)
        topic = broker.prefix + self._settings.internal_topic
        request = SubscribeRequest(topic, max_in_flight=_MAX_IN_FLIGHT)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(broker.driver.subscribe, request, self._deliver, self.stop)
                self._subscribed = True
                self._tried.set()
                task_status.started()
        finally:
            self._tried.set()

    async def _deliver(self, message: Message) -> Outcome:
        call = self._live.begin(f"/outbox/{self._settings.store}", self._settings.internal_pubsub, None)
        try:
            return await self._relay(message, call)
        except Exception as raised:  # the boundary of a delivery: whatever it was, the message is kept
            error = unwrap(raised)
            known = isinstance(error, MeshError)
            text = "outbox of state store %s: %s"
            _log.error(text, self._settings.store, error, exc_info=None if known else error)
            return Outcome.RETRY
        finally:
            self._live.end(call)

    async def _relay(self, message: Message, call: Call) -> Outcome:
        settings = self._settings
        try:
            event = event_of(
                message, settings.internal_pubsub, settings.internal_topic, raw=False, new_id=str
            )
        except ValueError as error:
            text = "outbox of state store %s: a message that is no event stays in topic %s: %s"
            _log.error(text, settings.store, settings.internal_topic, error)
            return Outcome.RETRY
        # Stores that share an internal topic share its messages, too. A daprd's do not name their store.
        name = event.text(STORE) or settings.store
        relay = self._others.get(name)
        if relay is None:
            text = "outbox of state store %s: there is no state store %s with an outbox any more"
            _log.error(text, settings.store, name)
            return Outcome.RETRY
        return await relay._conclude(event, call)

    async def _conclude(self, event: Event, call: Call) -> Outcome:
        """What becomes of an internal message of this store."""
        settings, key = self._settings, event.text("id")
        mark = await self._settled(key, call)
        if mark is Mark.COMMITTED:
            await self._publish(event, call)
            await self._ask(partial(finish, self._store.driver, key, remember=not settings.discard), call)
            return Outcome.ACK
        if mark is Mark.MISSING:
            if self.stop.is_set():
                return Outcome.RETRY
            text = "failed to publish outbox topic to pubsub %s: outbox state not found, %s"
            _log.error(text, settings.pubsub, "rejecting for later processing")
            return Outcome.RETRY
        return Outcome.ACK  # published by an earlier delivery, or discarded

    async def _settled(self, key: str, call: Call) -> Mark:
        """What became of the transaction, waiting for it with patience."""
        began, pause = trio.current_time(), _FIRST_LOOK
        while True:
            mark = await self._ask(partial(look, self._store.driver, key), call)
            if mark is not Mark.MISSING or self.stop.is_set():
                return mark
            if key in self._waited_for or trio.current_time() - began >= _PATIENCE:
                return await self._missing(key, call)
            await unless_stopped(pause, self.stop)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _missing(self, key: str, call: Call) -> Mark:
        if not self._settings.discard:
            # When it comes again it is looked at once: the patience of many must not leave others waiting.
            self._waited_for[key] = None
            if len(self._waited_for) > _MOST_WAITED_FOR:
                self._waited_for.popitem(last=False)
            return Mark.MISSING
        if await self._ask(partial(bury, self._store.driver, key), call):
            text = "failed to publish outbox topic to pubsub %s: outbox state not found, %s"
            _log.error(text, self._settings.pubsub, "discarding message")
            return Mark.BURIED
        return await self._ask(partial(look, self._store.driver, key), call)

    async def _ask(self, operation: Callable[[], Awaitable[T]], call: Call) -> T:
        return await scoped(self._store.policy, operation, call, stop=self.stop)

    async def _publish(self, event: Event, call: Call) -> None:
        """The event as its subscribers get it; its id is the marker's, so that repetitions show."""
        settings = self._settings
        broker: Broker = self._brokers.find(settings.pubsub)
        origin = Origin(
            id=event.text("id"),
            source=self._brokers.app_id,
            topic=settings.topic,
            pubsub=settings.pubsub,
            traceparent=event.text("traceparent"),
            tracestate=event.text("tracestate"),
            time=event.text("time"),
        )
        kind = event.text("datacontenttype")
        data = wrap(event.data, kind, _overrides(event), origin, extensions=_carried(event, kind))
        await self._publishing.send(broker, PublishRequest(settings.topic, data), call, stop=self.stop)


def _carried(event: Event, kind: str) -> Mapping[str, Any]:
    """Attributes of a daprd's message: it puts all metadata of the operation there, and relays it all."""
    if STORE in event.attributes or is_cloud_event(kind):
        return {}
    return {name: value for name, value in event.attributes.items() if name not in _MADE_ANEW}


def _overrides(event: Event) -> Mapping[str, str]:
    value = event.attributes.get(OVERRIDES)
    if not isinstance(value, dict):
        return {}
    return {str(name): one for name, one in value.items() if isinstance(one, str)}
