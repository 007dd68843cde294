"""One subscription for as long as it is wanted, message by message or in batches."""

from __future__ import annotations

from functools import partial

import trio

from meshnode.blocks.keeping import keep_going
from meshnode.blocks.pubsub.batches import DEFAULT_AWAIT_MS, DEFAULT_COUNT, Batches
from meshnode.blocks.pubsub.delivery import Delivery
from meshnode.blocks.pubsub.subscription import TopicSubscription
from meshnode.interfaces import Deliver, SubscribeRequest

__all__ = ["keep_subscribed"]


async def keep_subscribed(
    subscription: TopicSubscription,
    delivery: Delivery,
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    patient: bool = True,
) -> None:
    """Hold one subscription until `stop` is set and what was under way has ended."""
    what = f"subscription to topic {subscription.topic} of pubsub {subscription.broker.name}"
    if subscription.bulk is None:
        consume = partial(_subscribe, subscription, delivery.deliver, stop, subscription.max_in_flight)
        await keep_going(what, consume, stop, task_status=task_status, patient=patient)
        return
    size = subscription.bulk.max_messages or DEFAULT_COUNT
    limit = subscription.max_in_flight or 2 * size
    most = min(size, limit)  # a batch is full when it has all that may be under way
    patience = (subscription.bulk.max_await_ms or DEFAULT_AWAIT_MS) / 1000
    batches = Batches(delivery.deliver_together, most=most, patience=patience, stop=stop)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(batches.run)
        consume = partial(_subscribe, subscription, batches.deliver, stop, limit)
        await keep_going(what, consume, stop, task_status=task_status, patient=patient)
        nursery.cancel_scope.cancel()


async def _subscribe(
    subscription: TopicSubscription,
    deliver: Deliver,
    stop: trio.Event,
    limit: int | None,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    broker = subscription.broker
    request = SubscribeRequest(
        broker.prefix + subscription.topic,
        subscription.metadata,
        limit,
        gathered=subscription.bulk is not None,
    )
    await broker.driver.subscribe(request, deliver, stop, task_status=task_status)
