"""The broker as a component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import trio

from meshnode.errors import BulkPublishError
from meshnode.interfaces import Deliver, DriverContext, PublishRequest, PubSubFeature, SubscribeRequest
from meshnode_redis._client import Client
from meshnode_redis._command import Lost, run
from meshnode_redis._script import Arguments
from meshnode_redis.pubsub._entries import publication
from meshnode_redis.pubsub._options import Options
from meshnode_redis.pubsub._subscription import Subscription

__all__ = ["RedisPubSub"]

_FEATURES = frozenset({PubSubFeature.BULK_PUBSUB})


@final
class RedisPubSub:
    """A `PubSub` on Redis streams."""

    def __init__(self, client: Client, options: Options, context: DriverContext) -> None:
        self._client = client
        self._options = options
        self._context = context

    @property
    def features(self) -> frozenset[PubSubFeature]:
        return _FEATURES

    async def publish(self, request: PublishRequest) -> None:
        # Never repeated: where the answer was lost, the entry may be there.
        await self._client.call(request.topic, self._publication(request))

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        await trio.lowlevel.checkpoint()
        replies = await run(
            [(self._client.lane(request.topic), self._publication(request)) for request in requests]
        )
        failures = {
            position: self._client.error(reply)
            for position, reply in enumerate(replies)
            if isinstance(reply, Exception)
        }
        if replies and all(isinstance(reply, Lost) and not reply.sent for reply in replies):
            raise failures[0]
        if failures:
            raise BulkPublishError(failures)

    def _publication(self, request: PublishRequest) -> Arguments:
        age = self._options.trim_after
        oldest = self._context.wall() - age if age > 0 else None
        return publication(request, self._options.max_len_approx, oldest)

    async def subscribe(
        self,
        request: SubscribeRequest,
        deliver: Deliver,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        subscription = Subscription(self._client, self._options, self._context, request, deliver, stop)
        await subscription.run(task_status)

    async def ping(self) -> None:
        await self._client.ping()
