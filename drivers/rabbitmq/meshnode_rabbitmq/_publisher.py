"""Publishing: every message waits for the broker's confirm.

Trio's side hands publications over and sleeps; `run`, on the asyncio side, sends them in order on one
channel and does not wait for one confirm before it sends the next. A caller that is cancelled is gone, but
its publication is not torn out of the middle of the channel: messages are counted as they are sent, and one's
confirm would be taken for another's.

An exchange that is deleted with its last queue may be gone when the next message comes; the broker then
closes the channel. All that was under way on it is sent a second time, after what it needs was declared
again.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Sequence
from typing import Any, final

import trio
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity
from attrs import frozen
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from meshnode.errors import ComponentError, ComponentUnavailable, Status
from meshnode_rabbitmq._link import TROUBLE, Link, Lost, guarded, is_open, translated
from meshnode_rabbitmq._topology import Part, declare

__all__ = ["Publication", "Publisher", "Refusal"]

_MOST_UNDER_WAY = 1000

Refusal = type[ComponentError]


@final
@frozen
class Publication:
    """`needs` is what must be declared before. `mandatory`: that no queue takes it is an error."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Basic.Properties
    needs: Part | None = None
    mandatory: bool = False

    def check(self) -> None:
        """Raises `ValueError` where it cannot be put into frames. (Later would be too late: it would have
        been counted.)
        """
        try:
            for frame in self._head():
                marshal(frame, 1)
        except (TypeError, ValueError, struct.error) as error:
            raise ValueError(f"cannot be sent: {error}") from error

    def _head(self) -> list[Frame | ContentHeader]:
        publish = Basic.Publish(
            exchange=self.exchange, routing_key=self.routing_key, mandatory=self.mandatory
        )
        return [publish, ContentHeader(properties=self.properties, body_size=len(self.body))]

    def frames(self, size: int) -> list[Any]:
        """As many for the body as pieces of the size are needed."""
        body = self.body
        return [*self._head(), *[ContentBody(body[at : at + size]) for at in range(0, len(body), size)]]


def _future(channel: Channel) -> asyncio.Future[None]:
    """It fails with the channel, whether anybody is left to hear of it or not; asyncio would complain, and
    trio-asyncio end the loop.
    """
    future = channel.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


@final
class _Item:
    """A publication on its way. `error` says what became of it once `done` is set."""

    __slots__ = ("abandoned", "done", "error", "publication", "sent")

    def __init__(self, publication: Publication) -> None:
        self.publication = publication
        self.done = trio.Event()
        self.error: ComponentError | None = None
        self.abandoned = False
        self.sent = False


@final
class Publisher:
    """`run` has to be running; the other methods are trio's. `refusal` is the class of the broker's
    refusals.
    """

    def __init__(self, link: Link, refusal: Refusal) -> None:
        self._link = link
        self._refusal = refusal
        self._items: asyncio.Queue[_Item] = asyncio.Queue(_MOST_UNDER_WAY)
        self._under_way = 0
        self._channel: Channel | None = None
        self._sending = asyncio.Lock()
        self._declared: set[Part] = set()
        self._ended = False

    async def publish(self, publication: Publication) -> None:
        (error,) = await self.publish_all([publication])
        if error is not None:
            raise error

    async def publish_all(self, publications: Sequence[Publication]) -> list[ComponentError | None]:
        """In order; what went wrong with each. `ComponentUnavailable` where none was sent."""
        items: list[_Item] = []
        try:
            for start in range(0, len(publications), _MOST_UNDER_WAY // 4):
                batch = [self._submit(one) for one in publications[start : start + _MOST_UNDER_WAY // 4]]
                items += batch
                for item in batch:
                    await item.done.wait()
        finally:
            for item in items:
                item.abandoned = True
        if items and not any(item.sent for item in items):
            unavailable = [item.error for item in items if isinstance(item.error, ComponentUnavailable)]
            if len(unavailable) == len(items):
                raise unavailable[0]
        return [item.error for item in items]

    def _submit(self, publication: Publication) -> _Item:
        item = _Item(publication)
        if self._ended:
            item.error = ComponentUnavailable(f"rabbitmq at {self._link.address}: the component is closed")
        elif self._under_way >= _MOST_UNDER_WAY:
            text = f"rabbitmq at {self._link.address}: {self._under_way} messages wait for their confirms"
            item.error = self._refusal(text, status=Status.RESOURCE_EXHAUSTED)
        if item.error is not None:
            item.done.set()
            return item
        self._under_way += 1
        self._items.put_nowait(item)
        return item

    async def run(self) -> None:
        """Until it is cancelled; then nobody is left waiting."""
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    while True:
                        group.create_task(self._handle(await self._items.get()))
                except asyncio.CancelledError:
                    # A broker that does not read must not keep the tasks from ending.
                    if self._under_way:
                        self._link.abort()
                    raise
        finally:
            self._ended = True
            while not self._items.empty():
                self._settle(self._items.get_nowait(), Lost("the component was closed"))

    async def _handle(self, item: _Item) -> None:
        """One publication, from beginning to end; answers it in any case."""
        error: BaseException | None = Lost("the component was closed")
        try:
            await self._send(item)
            error = None
        except TROUBLE as trouble:
            error = trouble
        finally:
            self._settle(item, error)

    def _settle(self, item: _Item, error: BaseException | None) -> None:
        if error is not None:
            what = "the message may have been taken: " if item.sent else ""
            item.error = translated(self._link.address, error, self._refusal, what)
        self._under_way -= 1
        item.done.set()

    async def _send(self, item: _Item) -> None:
        try:
            await self._send_once(item)
        except ChannelNotFoundEntity:
            await self._send_once(item)

    async def _send_once(self, item: _Item) -> None:
        one = item.publication
        async with self._sending:
            if item.abandoned:
                return
            channel = await self._ready(one.needs)
            item.sent = True
            confirm = await self._write(channel, one)
        await guarded(confirm)

    async def _write(self, channel: Channel, one: Publication) -> asyncio.Future[None]:
        """The future of the confirm. What aiormq's own method does, except that there messages queue up for a
        channel that the broker may close meanwhile, and that every message gets an id.
        """
        channel.delivery_tag += 1
        confirm = _future(channel)
        channel.confirmations[channel.delivery_tag] = confirm
        if one.mandatory and (name := one.properties.message_id):
            # By its id aiormq finds out whose message has come back.
            channel.message_id_delivery_tag[name] = channel.delivery_tag
            confirm.add_done_callback(lambda _: channel.message_id_delivery_tag.pop(name, None))
        written = _future(channel)
        frames = ChannelFrame.marshall(channel.number, one.frames(channel.max_content_size), written)
        await channel.write_queue.put(frames)
        await guarded(written)
        return confirm

    async def _ready(self, needs: Part | None) -> Channel:
        """The channel, with what the message needs declared; on another channel, for a refusal closes it."""
        channel = self._channel
        if channel is None or not is_open(channel):
            self._declared.clear()
            channel = self._channel = await self._link.channel(confirms=True)
        if needs is not None and needs not in self._declared:
            aside = await self._link.channel()
            await guarded(declare(aside, needs))
            await guarded(aside.close())
            self._declared.add(needs)
        return channel

    async def prepare(self, parts: Iterable[Part]) -> None:
        """On the asyncio side: connect, and declare now what will be needed. Raises one of `TROUBLE`."""
        async with self._sending:
            await self._ready(None)
            for part in parts:
                await self._ready(part)
