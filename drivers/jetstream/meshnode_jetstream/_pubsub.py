"""The broker as a component."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, final

import trio
from nats import errors
from nats.aio.client import Client

from meshnode.errors import BulkPublishError, ComponentUnavailable
from meshnode.interfaces import Deliver, PublishRequest, PubSubFeature, SubscribeRequest
from meshnode_jetstream._connection import ApiError, Connection, aio_request, translated
from meshnode_jetstream._options import Options
from meshnode_jetstream._protocol import event_id
from meshnode_jetstream._subscription import Subscription

__all__ = ["JetStreamPubSub"]

_TROUBLE = (errors.Error, ApiError, OSError, TimeoutError, ValueError)
_ID = "Nats-Msg-Id"
_LOST = ConnectionError("the connection was lost before the answer came; the message may have been taken")


@final
class JetStreamPubSub:
    """A `PubSub` over one connection."""

    def __init__(self, options: Options, connection: Connection, rng: random.Random) -> None:
        self._options = options
        self._connection = connection
        self._rng = rng
        self._finding = trio.Lock()

    @property
    def features(self) -> frozenset[PubSubFeature]:
        return frozenset({PubSubFeature.BULK_PUBSUB})

    async def publish(self, request: PublishRequest) -> None:
        client = await self._connection.client()
        try:
            await self._connection.while_connected(self._aio_publish, client, request)
        except _TROUBLE as error:
            raise translated(error, f"{self._connection.where}: {request.topic}") from error

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        client = await self._connection.client()
        results: list[Exception | None] = [_LOST] * len(requests)
        with suppress(ComponentUnavailable):  # then it is in the results
            await self._connection.while_connected(self._aio_publish_all, client, requests, results)
        where = self._connection.where
        failures: dict[int, Exception] = {
            position: translated(error, f"{where}: {requests[position].topic}")
            for position, error in enumerate(results)
            if error is not None
        }
        # Without a stream nothing was taken; whatever else went wrong may have come after the server took it.
        if results and all(isinstance(error, errors.NoRespondersError) for error in results):
            raise ComponentUnavailable(str(failures[0]))
        if failures:
            raise BulkPublishError(failures)

    async def _aio_publish_all(
        self, client: Client, requests: Sequence[PublishRequest], results: list[Exception | None]
    ) -> None:
        """They are sent in order, and their acknowledgements waited for together."""

        async def publish(position: int, request: PublishRequest) -> None:
            try:
                await self._aio_publish(client, request)
            except _TROUBLE as error:
                results[position] = error
            else:
                results[position] = None

        await asyncio.gather(*[publish(position, request) for position, request in enumerate(requests)])

    async def _aio_publish(self, client: Client, request: PublishRequest) -> None:
        key = event_id(request.data)
        answer = await self._aio_put(client, request, key)
        if answer.get("duplicate") and not await self._aio_is_here(client, request.topic, answer):
            # The stream holds several topics, and an event published to two of them (its dead-letter topic
            # is one) is no duplicate in the second.
            await self._aio_put(client, request, f"{key}@{request.topic}")

    async def _aio_put(self, client: Client, request: PublishRequest, key: str) -> Any:
        headers = {_ID: key} if key else None
        return await aio_request(client, request.topic, request.data, headers)

    async def _aio_is_here(self, client: Client, topic: str, answer: Any) -> bool:
        """Whether the message that the server took ours for a duplicate of was for the same topic."""
        subject = f"{self._connection.prefix}.STREAM.MSG.GET.{answer['stream']}"
        try:
            found = await aio_request(client, subject, b'{"seq":%d}' % answer["seq"])
        except (ApiError, errors.Error, TimeoutError):
            # Deleted when it was processed, or not ours to read. Once too often is better than never.
            return False
        return bool(found["message"]["subject"] == topic)

    async def subscribe(
        self,
        request: SubscribeRequest,
        deliver: Deliver,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        name = f"meshnode-{self._rng.getrandbits(96):024x}"
        subscription = Subscription(self._connection, self._options, request, deliver, name)
        await subscription.run(self._finding, stop, task_status)

    async def ping(self) -> None:
        try:
            await self._connection.api("INFO")
        except ApiError as error:
            raise translated(error, self._connection.where) from error
