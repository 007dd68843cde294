"""One consumer on a channel of its own: what the broker sends waits in a buffer of the size of the prefetch
count, which is what keeps the broker from sending more.

`receive` and `settle` are trio's; the rest runs on the asyncio side. Closing the channel gives back
everything that is not acknowledged, at once and in its old place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import trio
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from meshnode_rabbitmq._link import TROUBLE, Link, Lost, guarded, is_open, on_asyncio
from meshnode_rabbitmq._topology import Part, declare

__all__ = ["Consumer", "start_consumer"]

_SETTLING = 5
"""Seconds for an acknowledgement to leave."""


@final
class _Tags(dict[str, Any]):
    """aiormq's table of a channel's consumers, which says when the broker has ended one: its queue was
    deleted, or has moved to another node. aiormq tells nobody else.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        super().__init__()
        self._ended = ended

    def pop(self, *arguments: Any) -> Any:
        self._ended()
        return super().pop(*arguments)


@final
class Consumer:
    """Made by `start_consumer`."""

    def __init__(self, link: Link, channel: Channel, prefetch: int) -> None:
        self._link = link
        self._channel = channel
        self._send, self._receive = trio.open_memory_channel[DeliveredMessage](prefetch)
        self._why: BaseException = Lost("the broker ended the consumer, as when its queue is deleted")

    async def start(self, queue: str, prefetch: int) -> None:
        channel = self._channel
        channel.closing.add_done_callback(self._closed)
        channel.consumers = _Tags(self._send.close)
        await guarded(channel.basic_qos(prefetch_count=prefetch))
        await guarded(channel.basic_consume(queue, self._take, consumer_tag=queue))

    async def _take(self, message: DeliveredMessage) -> None:
        try:
            self._send.send_nowait(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Nobody takes any more: it is given back with the channel.
            return
        except trio.WouldBlock:
            self._why = Lost("the broker sent more than the prefetch count")
            self._send.close()

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        if not closing.cancelled() and isinstance(error := closing.exception(), TROUBLE):
            self._why = error
        else:
            self._why = Lost("the channel was closed")
        self._send.close()

    async def receive(self) -> DeliveredMessage:
        """The next message. Raises `Lost` when no more can come."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise Lost(str(self._why) or type(self._why).__name__) from self._why

    async def settle(self, tag: int, *, accept: bool, requeue: bool = False) -> None:
        """Acknowledge the message, or give it back, or (neither) have the broker dead-letter or drop it.

        Where the connection is lost, the broker has it back already.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _SETTLING):
            try:
                await on_asyncio(partial(self._settle, tag, accept=accept, requeue=requeue))
            except TROUBLE:
                pass

    async def _settle(self, tag: int, *, accept: bool, requeue: bool) -> None:
        if not is_open(self._channel):
            raise Lost("the channel is closed")
        if accept:
            await self._channel.basic_ack(tag, wait=False)
        else:
            await self._channel.basic_nack(tag, requeue=requeue, wait=False)

    async def cancel(self, queue: str) -> None:
        """The broker sends no more, and has back what was sent and not begun; the rest can still be settled.
        Raises one of `TROUBLE`.
        """
        await self._link.hanging_up(self._channel.basic_cancel(queue))
        while True:
            try:
                message = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return
            await self._settle(message.delivery_tag or 0, accept=False, requeue=True)

    async def close(self) -> None:
        """Returns when the broker has what this consumer had. Does not raise."""
        self._receive.close()
        try:
            if is_open(self._channel):
                await self._link.hanging_up(self._channel.close())
        except TROUBLE:
            pass


async def start_consumer(link: Link, parts: Sequence[Part], queue: str, prefetch: int) -> Consumer:
    """Declares what is needed and begins. Raises one of `TROUBLE`."""
    channel = await link.channel()
    consumer = Consumer(link, channel, prefetch)
    try:
        for part in parts:
            await guarded(declare(channel, part))
        await consumer.start(queue, prefetch)
    except BaseException:
        # In a task of its own: this one may have been cancelled, and `guarded` would believe it is again.
        await asyncio.shield(consumer.close())
        raise
    return consumer
