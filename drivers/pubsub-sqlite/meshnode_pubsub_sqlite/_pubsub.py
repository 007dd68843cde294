"""Publishing and subscribing: requests become jobs for the worker."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, final

import trio
from attrs import frozen
from meshnode_sqlite_client import Worker

from meshnode.errors import BulkPublishError, ComponentError, ComponentUnavailable
from meshnode.interfaces import (
    Deliver,
    Deliveries,
    DriverContext,
    Message,
    Outcome,
    PublishRequest,
    PubSubFeature,
    SubscribeRequest,
    open_deliveries,
)
from meshnode_pubsub_sqlite import _publishing, _rows
from meshnode_pubsub_sqlite._bells import Bells
from meshnode_pubsub_sqlite._options import Options
from meshnode_pubsub_sqlite._publishing import Bounds
from meshnode_pubsub_sqlite._rows import Lease, Taken
from meshnode_pubsub_sqlite._tending import Tending

__all__ = ["SqlitePubSub"]

T = TypeVar("T")

_FEATURES = frozenset({PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB})
_PAUSE = 1.0
"""Between attempts at a database that is locked or full, in seconds."""


@frozen
class _Subscription:
    topic: str
    group: int
    deliver: Deliver
    stop: trio.Event


@final
class SqlitePubSub:
    """A `PubSub` in an SQLite file."""

    def __init__(
        self, options: Options, context: DriverContext, worker: Worker, tending: Tending, bells: Bells
    ) -> None:
        self._options = options
        self._context = context
        self._worker = worker
        self._tending = tending
        self._bells = bells
        self._keep = options.retention.total_seconds() > 0
        self._bounds = Bounds(options.max_length, options.unclaimed_retention.total_seconds() > 0)
        self._dropping: set[str] = set()
        # The database's own timeouts bound every job; this is for a disk that hangs.
        self._patience = 2 * (options.busy_timeout + options.timeout).total_seconds()

    @property
    def features(self) -> frozenset[PubSubFeature]:
        return _FEATURES

    async def publish(self, request: PublishRequest) -> None:
        action = partial(_publishing.publish, request, self._context.wall(), self._bounds)
        if await self._worker.call(action, writes=True):
            self._say_dropping(request.topic)
        self._bells.ring(request.topic)

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        if not requests:
            return
        action = partial(_publishing.publish_all, requests, self._context.wall(), self._bounds)
        published = await self._worker.call(action, writes=True)
        if published.dropped:
            self._say_dropping(requests[0].topic)
        self._bells.ring(requests[0].topic)
        if published.failures:
            raise BulkPublishError(published.failures)

    def _say_dropping(self, topic: str) -> None:
        """Once: it goes on with every publication. (Each topic that is noted fills a good part of a disk.)"""
        if topic not in self._dropping:
            self._dropping.add(topic)
            self._context.log.warning(
                "nobody has subscribed to topic %s: it keeps the newest %d messages, older ones are dropped",
                topic,
                self._bounds.most,
            )

    async def subscribe(
        self,
        request: SubscribeRequest,
        deliver: Deliver,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        name = self._options.consumer_id or self._context.app_id
        group = await self._worker.call(partial(_publishing.join, request.topic, name), writes=True)
        subscription = _Subscription(request.topic, group, deliver, stop)
        limit = request.max_in_flight or self._options.concurrency
        with self._bells.listening(request.topic):
            async with open_deliveries(limit=limit, stop=stop) as deliveries:
                task_status.started()
                while room := await deliveries.room():
                    await self._feed(subscription, deliveries, room)

    async def _feed(self, subscription: _Subscription, deliveries: Deliveries, room: int) -> None:
        """Begins what there is, or waits until there may be something."""
        bell = self._bells.bell(subscription.topic)
        taken = await self._take(subscription, room)
        for lease, message in taken.items:
            self._tending.leases.add(lease)
            deliveries.start(partial(self._handle, subscription, lease, message))
        if not taken.items:
            await deliveries.unless_stopped(partial(self._idle, bell, taken.due))

    async def _take(self, subscription: _Subscription, room: int) -> Taken:
        now = self._context.wall()
        number, group = self._tending.owner.number, subscription.group
        action = partial(_rows.take, group, number, room, now, self._tending.until(), self._keep)
        try:
            return await self._through(action, partial(_rows.may_take, group, now))
        except ComponentError as error:
            self._context.log.warning("taking messages of topic %s: %s", subscription.topic, error)
            return Taken((), now + _PAUSE)

    async def _idle(self, bell: trio.Event, due: float | None) -> None:
        seconds = float("inf") if due is None else max(due - self._context.wall(), 0.0)
        with trio.move_on_after(seconds):
            await bell.wait()

    async def _handle(self, subscription: _Subscription, lease: Lease, message: Message) -> None:
        outcome: Outcome | None = None
        try:
            # What was taken while the stop came has not begun, and goes back.
            if not subscription.stop.is_set():
                outcome = await subscription.deliver(message)
        finally:
            if outcome is None:
                await self._give_back(lease)
                self._bells.ring(subscription.topic)
        if outcome is Outcome.ACK:
            action = partial(_rows.acknowledge, lease, self._context.wall(), self._keep)
            await self._settle(lease, action, subscription.topic if lease.key else "")
        elif outcome is Outcome.RETRY:
            await self._put_back_for_later(subscription, lease)

    async def _put_back_for_later(self, subscription: _Subscription, lease: Lease) -> None:
        """Keeps its place among the deliveries: a consumer that fails everything is not fed faster."""
        interval = self._options.redeliver_interval.total_seconds()
        due = self._context.wall() + interval
        await self._settle(lease, partial(_rows.put_back, lease, due), "")
        with trio.move_on_after(interval):
            await subscription.stop.wait()
        self._bells.ring(subscription.topic)

    async def _settle(self, lease: Lease, action: Callable[[sqlite3.Connection], bool], ring: str) -> None:
        """Tries until the database has taken it; meanwhile the lease is kept, and nobody else is given the
        message.
        """
        try:
            while True:
                try:
                    ours = await self._through(action, True)
                except ComponentError as error:
                    self._context.log.warning("settling message %d: %s", lease.message, error)
                    await trio.sleep(_PAUSE)
                else:
                    break
        finally:
            self._tending.leases.discard(lease)
        if not ours:
            self._context.log.info("message %d went to another consumer meanwhile", lease.message)
        if ring:
            self._bells.ring(ring)

    async def _give_back(self, lease: Lease) -> None:
        self._tending.leases.discard(lease)
        try:
            await self._through(partial(_rows.put_back, lease, 0.0), True)
        except ComponentError as error:
            self._context.log.warning("a message stays ours until its lease lapses: %s", error)

    async def _through(
        self,
        action: Callable[[sqlite3.Connection], T],
        writes: bool | Callable[[sqlite3.Connection], bool],
    ) -> T:
        """A job that is not left half-way when we are cancelled: what was leased is known to be.

        It need not survive a power cut, after which the message would come again.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._patience):
            return await self._worker.call(action, writes=writes, durable=False)
        raise ComponentUnavailable(f"sqlite database {self._options.connection_string} does not answer")

    async def ping(self) -> None:
        await self._worker.call(_look, writes=False)


def _look(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT level FROM pubsub_schema").fetchone()
