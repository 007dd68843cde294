"""What a topic's subscription and an input binding have in common: a consumer, and deliveries side by side.

A message that is to be tried again stays here, unacknowledged, for the pause: it counts against the limit
and the prefetch count, so a consumer that fails everything is not fed faster.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import final

import trio
from aiormq.abc import DeliveredMessage
from attrs import frozen

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import Outcome, open_deliveries
from meshnode_rabbitmq._consumer import Consumer, start_consumer
from meshnode_rabbitmq._link import TROUBLE, Link, on_asyncio, translated
from meshnode_rabbitmq._publisher import Refusal
from meshnode_rabbitmq._topology import Part

__all__ = ["Manner", "Source", "follow"]

Handle = Callable[[DeliveredMessage], Awaitable[Outcome]]

_FAREWELL = 5


@final
@frozen
class Source:
    """A queue, and what must be declared to have it."""

    queue: str
    parts: Sequence[Part]
    prefetch: int


@final
@frozen
class Manner:
    """How deliveries are made. `requeues`: a failed message goes back into the queue, after `pause` seconds;
    otherwise it is the broker's to dead-letter or drop. `accepts_failed`: it is acknowledged instead.
    """

    limit: int
    pause: float
    requeues: bool = True
    accepts_failed: bool = False


@asynccontextmanager
async def _open_consumer(link: Link, source: Source, refusal: Refusal) -> AsyncIterator[Consumer]:
    try:
        consumer = await on_asyncio(
            partial(start_consumer, link, source.parts, source.queue, source.prefetch)
        )
    except TROUBLE as error:
        raise translated(link.address, error, refusal, f"queue {source.queue}: ") from error
    try:
        yield consumer
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL):
            await on_asyncio(consumer.close)


async def follow(
    link: Link,
    source: Source,
    manner: Manner,
    handle: Handle,
    stop: trio.Event,
    refusal: Refusal,
    task_status: trio.TaskStatus[None],
) -> None:
    """Hand the queue's messages to `handle` until the stop. Raises `ComponentUnavailable` when the
    connection is lost before: what was under way is cancelled then, for it is the broker's again.
    """
    lost: Exception | None = None
    async with _open_consumer(link, source, refusal) as consumer:
        with trio.CancelScope() as scope:
            async with open_deliveries(limit=manner.limit, stop=stop) as deliveries:
                task_status.started()
                try:
                    while await deliveries.room():
                        message = await deliveries.unless_stopped(consumer.receive)
                        if message is not None:
                            deliveries.start(partial(_deliver, consumer, message, manner, handle, stop))
                    await on_asyncio(partial(consumer.cancel, source.queue))
                except TROUBLE as error:
                    lost = error
                    scope.cancel()
    if lost is not None and not stop.is_set():
        text = f"rabbitmq at {link.address}: queue {source.queue}: {lost}"
        raise ComponentUnavailable(text) from lost


async def _deliver(
    consumer: Consumer, message: DeliveredMessage, manner: Manner, handle: Handle, stop: trio.Event
) -> None:
    """Whatever else happens than an outcome, closing the channel gives the message back."""
    outcome = await handle(message)
    tag = message.delivery_tag or 0
    if outcome is Outcome.ACK or manner.accepts_failed:
        await consumer.settle(tag, accept=True)
        return
    if manner.requeues:
        with trio.move_on_after(manner.pause):
            await stop.wait()
    await consumer.settle(tag, accept=False, requeue=manner.requeues)
