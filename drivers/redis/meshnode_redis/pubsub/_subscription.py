"""One subscription: its consumer, its deliveries, its connections one after another."""

from __future__ import annotations

import logging
from functools import partial
from itertools import count
from typing import final

import trio

from meshnode.errors import ComponentError
from meshnode.interfaces import (
    Deliver,
    Deliveries,
    DriverContext,
    Outcome,
    SubscribeRequest,
    open_deliveries,
)
from meshnode_redis._client import Client
from meshnode_redis.pubsub._entries import Entry, message_of
from meshnode_redis.pubsub._feed import LONGEST_BLOCK, Feed
from meshnode_redis.pubsub._group import Group, backoff
from meshnode_redis.pubsub._options import Options

__all__ = ["Subscription"]


@final
class Subscription:
    """Entries under way are kept young while we live, so nobody else takes them, however long they take."""

    def __init__(
        self,
        client: Client,
        options: Options,
        context: DriverContext,
        request: SubscribeRequest,
        deliver: Deliver,
        stop: trio.Event,
    ) -> None:
        self._client = client
        self._options = options
        self._context = context
        self._limit = request.max_in_flight or options.concurrency
        self._deliver = deliver
        self._stop = stop
        self._group = Group(client, options, context, request.topic)
        self._under_way: dict[bytes, None] = {}
        self._positions = count(1)

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Raises only when it cannot begin, or when a delivery raises."""
        await self._group.join()
        error: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep)
                task_status.started()
                try:
                    async with open_deliveries(limit=self._limit, stop=self._stop) as deliveries:
                        await self._feed(deliveries)
                except Exception as raised:  # out of the nursery it would come in a group
                    error = raised
                nursery.cancel_scope.cancel()
        finally:
            await self._group.leave()
        if error is not None:
            raise error

    async def _keep(self) -> None:
        """Signs of life, three in each processing timeout."""
        if self._options.redelivers:
            while True:
                await trio.sleep(self._options.processing / 3)
                await self._group.keep(tuple(self._under_way))

    async def _feed(self, deliveries: Deliveries) -> None:
        """Until the stop; a connection that is lost is followed by the next one."""
        failures, told = 0, ""
        while not self._stop.is_set():
            answers, trouble = await self._converse(deliveries, told)
            if trouble is None:
                break
            failures, told = (0, "") if answers else (failures, told)
            if trouble.message != told:
                told = trouble.message
                self._log(logging.WARNING, f"{told}; trying again")
            await deliveries.unless_stopped(partial(trio.sleep, backoff(failures, self._context)))
            failures += 1
        # Those that still run may take long; what was taken and not begun need not wait for them.
        await self._group.give_back(tuple(self._under_way))

    async def _converse(self, deliveries: Deliveries, told: str) -> tuple[int, ComponentError | None]:
        """One connection's time: how many answers came, and what ended it if not the stop."""
        try:
            # Again for every connection: the group may be gone with what its server had, and in a cluster
            # this is how we learn where the stream is now.
            await deliveries.unless_stopped(self._group.join)
            async with self._client.private(self._group.topic, LONGEST_BLOCK) as private:
                known = self._under_way
                feed = Feed(self._client, private, self._group, self._options, self._context, known)
                try:
                    await self._take_from(feed, deliveries, told)
                except ComponentError as error:
                    return feed.answers, error
                return feed.answers, None
        except ComponentError as error:
            return 0, error

    async def _take_from(self, feed: Feed, deliveries: Deliveries, told: str) -> None:
        while room := await deliveries.room():
            for entry in await deliveries.unless_stopped(partial(feed.take, room)) or ():
                self._begin(deliveries, entry)
            if told and feed.answers:
                self._log(logging.INFO, "receives again")
                told = ""

    def _begin(self, deliveries: Deliveries, entry: Entry) -> None:
        self._under_way[entry.id] = None
        deliveries.start(partial(self._handle, entry, next(self._positions)))

    async def _handle(self, entry: Entry, position: int) -> None:
        """What ends without an outcome is given back at the end of all, for it ends the subscription."""
        message, trouble = message_of(entry, self._group.topic, position)
        if trouble:
            self._log(logging.WARNING, f"entry {entry.id.decode()}: {trouble}")
        try:
            outcome = await self._deliver(message)
            if outcome is Outcome.ACK or self._options.ack_on_error:
                await self._group.acknowledge(entry.id)
            else:
                await self._group.put_off(entry.id)
        finally:
            self._under_way.pop(entry.id, None)

    def _log(self, level: int, text: str) -> None:
        self._context.log.log(level, "%s: topic %s: %s", self._context.component, self._group.topic, text)
