"""Publishing: one idempotent producer for everybody.

Runs on the asyncio side. The producer sends a record again until the broker has it, and the broker knows a
record that it has already, so a broken connection neither loses nor doubles one. That goes on after the
caller has stopped waiting: an error here says that a record may still be written.

A record that the broker refuses leaves a hole in the producer's numbers, after which it takes nothing more of
that partition: the producer is replaced then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, final

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka import errors as kafka

from meshnode_kafka._closing import close_producer
from meshnode_kafka._errors import TROUBLE
from meshnode_kafka._records import Record

__all__ = ["Publisher", "Unanswered"]

_ANSWER_SECONDS = 10.0
"""How long a broker may take to acknowledge, connecting again included."""

_TOPIC_SECONDS = 5.0
"""How long the brokers may take to create a topic."""


@final
class Unanswered(TimeoutError):
    """The broker has not acknowledged in time."""

    def __init__(self) -> None:
        super().__init__("no acknowledgement; the message may still be written")


@final
class Publisher:
    """`make` makes a producer, not started."""

    def __init__(self, make: Callable[[], AIOKafkaProducer]) -> None:
        self._make = make
        self._producer: AIOKafkaProducer | None = None
        self._replacing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises one of `TROUBLE` when no broker answers."""
        self._producer = await self._started()

    async def publish(self, records: Sequence[Record]) -> list[Exception | None]:
        """What became of each record. They are sent in order and wait for their answers together."""
        producer = await self._sound()
        sent: list[asyncio.Future[Any] | Exception] = []
        for record in records:
            try:
                sent.append(await self._send(producer, record))
            except TROUBLE as error:
                sent.append(error)
        waiting = [one for one in sent if isinstance(one, asyncio.Future)]
        if waiting:
            await asyncio.wait(waiting, timeout=_ANSWER_SECONDS)
        outcomes = [one if isinstance(one, Exception) else _outcome(one) for one in sent]
        if any(_spoils(_outcome(one)) for one in waiting):
            await self._replace(producer)
        return outcomes

    async def ping(self) -> bool:
        return bool(await self._running.client.force_metadata_update())

    async def aclose(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            self._close_soon(producer)
        if self._closing:
            await asyncio.wait(self._closing)

    @property
    def _running(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise kafka.ProducerClosed
        return self._producer

    async def _sound(self) -> AIOKafkaProducer:
        if self._running._sender.sender_task.done():
            await self._replace(self._running)
        return self._running

    async def _started(self) -> AIOKafkaProducer:
        producer = self._make()
        try:
            await producer.start()
        except BaseException:
            self._close_soon(producer)
            raise
        # If that task should fail, aiokafka's own callback stumbles over transactions that are not there,
        # and an error in a callback ends the whole loop.
        sender = producer._sender
        sender.sender_task.remove_done_callback(sender._fail_all)
        return producer

    def _close_soon(self, producer: AIOKafkaProducer) -> None:
        """Whoever closes it may be cancelled; `aclose` waits for it."""
        closing = asyncio.ensure_future(close_producer(producer))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _send(self, producer: AIOKafkaProducer, record: Record) -> asyncio.Future[Any]:
        partitions = await self._partitions(producer, record.topic)
        if record.partition is not None and record.partition not in partitions:
            raise kafka.UnknownTopicOrPartitionError(
                f"topic {record.topic} has {len(partitions)} partitions and no partition {record.partition}"
            )
        async with asyncio.timeout(_ANSWER_SECONDS):
            future: asyncio.Future[Any] = await producer.send(
                record.topic, record.value, record.key, record.partition, headers=record.headers
            )
        # Whoever stops waiting asks for its error no more.
        future.add_done_callback(lambda one: one.cancelled() or one.exception())
        return future

    async def _partitions(self, producer: AIOKafkaProducer, topic: str) -> set[int]:
        """Asking for a topic creates it, where the brokers do that."""
        with suppress(TimeoutError, kafka.UnknownTopicOrPartitionError):
            async with asyncio.timeout(_TOPIC_SECONDS):
                partitions: set[int] = await producer.partitions_for(topic)
                return partitions
        if not await producer.client.force_metadata_update():
            raise kafka.KafkaConnectionError("no broker answers")
        raise kafka.UnknownTopicOrPartitionError(f"topic {topic} does not exist")

    async def _replace(self, spoiled: AIOKafkaProducer) -> None:
        async with self._replacing:
            if self._producer is not spoiled:
                return
            with suppress(*TROUBLE):  # then the next publication tries again
                self._producer = await self._started()
                self._close_soon(spoiled)


def _outcome(future: asyncio.Future[Any]) -> Exception | None:
    if not future.done():
        return Unanswered()
    error = future.exception()
    return error if error is None or isinstance(error, Exception) else kafka.KafkaError(repr(error))


def _spoils(outcome: Exception | None) -> bool:
    return isinstance(outcome, kafka.KafkaError) and not outcome.retriable
