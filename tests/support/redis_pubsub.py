"""A broker on Redis, opened as a node opens it, and subscriptions that keep account."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, final

import trio
import trio_asyncio
from meshnode_redis.pubsub import Options, RedisPubSub, driver
from support.redis_servers import RedisServer

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import DriverContext, Message, Outcome, PublishRequest, PubSub, SubscribeRequest

__all__ = [
    "CONTEXT",
    "Consumer",
    "consumers",
    "consuming",
    "open_driver",
    "pending",
    "publish",
    "publish_stubbornly",
    "until",
]

CONTEXT = DriverContext("pubsub", "app")
_PATIENCE = 40


@asynccontextmanager
async def open_driver(**options: Any) -> AsyncIterator[RedisPubSub]:
    loop = trio_asyncio.open_loop()  # type: ignore[attr-defined]
    async with loop, driver.open(Options(**options), CONTEXT) as broker:
        yield broker


@final
class Consumer:
    """One subscription. `answer` decides what becomes of a message."""

    def __init__(self, answer: Callable[[Message], Awaitable[Outcome]]) -> None:
        self._answer = answer
        self._news = trio.Event()
        self.messages: list[Message] = []
        self.acknowledged: list[bytes] = []
        self.stop = trio.Event()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    @property
    def data(self) -> list[bytes]:
        return [message.data for message in self.messages]

    async def run(
        self, broker: PubSub, request: SubscribeRequest, *, task_status: trio.TaskStatus[None]
    ) -> None:
        try:
            with self.scope:
                await broker.subscribe(request, self._deliver, self.stop, task_status=task_status)
        finally:
            self.ended.set()

    async def _deliver(self, message: Message) -> Outcome:
        self.messages.append(message)
        self._tell()
        outcome = await self._answer(message)
        if outcome is Outcome.ACK:
            self.acknowledged.append(message.data)
            self._tell()
        return outcome

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def has(self, condition: Callable[[], object]) -> None:
        """Until what it has been given makes the condition true."""
        with trio.fail_after(_PATIENCE):
            while not condition():
                await self._news.wait()


async def acknowledge(_message: Message) -> Outcome:
    return Outcome.ACK


@asynccontextmanager
async def consuming(
    broker: PubSub,
    topic: str,
    answer: Callable[[Message], Awaitable[Outcome]] = acknowledge,
    limit: int | None = None,
) -> AsyncIterator[Consumer]:
    """A subscription that has started; stopped, and waited for, on the way out."""
    consumer = Consumer(answer)
    async with trio.open_nursery() as nursery:
        await nursery.start(consumer.run, broker, SubscribeRequest(topic, max_in_flight=limit))
        yield consumer
        consumer.stop.set()
        with trio.fail_after(_PATIENCE):
            await consumer.ended.wait()


async def publish(broker: PubSub, topic: str, *bodies: bytes, **metadata: str) -> None:
    for data in bodies:
        await broker.publish(PublishRequest(topic, data, metadata=metadata))


async def publish_stubbornly(broker: PubSub, topic: str, data: bytes) -> None:
    """As a policy that retries for ever would: what is unsure is published again."""
    with trio.fail_after(_PATIENCE):
        while True:
            try:
                await broker.publish(PublishRequest(topic, data))
                return
            except ComponentUnavailable:
                await trio.sleep(0.02)


async def until(condition: Callable[[], object]) -> None:
    """Until what the server says of itself is so. (It does not tell by itself.)"""
    with trio.fail_after(_PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.02)


def pending(server: RedisServer, topic: str, group: str = "app") -> list[tuple[str, str, int]]:
    """Entry, consumer and age in milliseconds of all that is pending."""
    words = server.command("XPENDING", topic, group, "-", "+", "1000").split("\r\n")[1:]
    found = []
    while "*4" in words:
        words = words[words.index("*4") + 1 :]
        found.append((words[1], words[3], int(words[4][1:])))
    return found


def consumers(server: RedisServer, topic: str, group: str = "app") -> list[str]:
    words = server.command("XINFO", "CONSUMERS", topic, group).split("\r\n")
    return [words[at + 2] for at, word in enumerate(words) if word == "name"]
