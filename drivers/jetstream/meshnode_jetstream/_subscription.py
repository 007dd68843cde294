"""One subscription: messages in, `deliver`, acknowledgements out (trio).

The server is asked for as many messages as may begin (a push consumer sends without being asked). While a
message is ours, waiting or under way, the server is told so before it would give it to somebody else.
`RETRY` gives it back with a pause that the server keeps; a delivery that was cut short gives it back at once.

With the policies `all` and `none` giving back is impossible, or would be undone by the next acknowledgement:
there a message is tried again in its place, after the pause.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import final

import trio
from nats import errors

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode.interfaces import Deliver, Deliveries, Message, Outcome, SubscribeRequest, open_deliveries
from meshnode_jetstream import _protocol
from meshnode_jetstream._connection import ApiError, Connection, on_asyncio, translated
from meshnode_jetstream._consumer import Consumer, find_stream, look_up, make
from meshnode_jetstream._floor import Floor
from meshnode_jetstream._inbox import Held, Inbox
from meshnode_jetstream._options import Options

__all__ = ["Subscription", "lone"]

_PAUSE = 1.0
"""Before a message that failed comes again, where the metadata does not say."""
_SILENCE = 2.5 * _protocol.BEAT
"""Without a word for so long a pull request is taken for lost."""
_LOOK = 30.0
"""Seconds of silence after which a push consumer is looked up: does it exist?"""
_CLEAN_UP_SECONDS = 1.0
_OFTEN = 0.05
"""Shortest time between two rounds of telling the server what is still ours."""


def lone(error: BaseException) -> BaseException:
    """What is alone in its exception group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _clean_up() -> trio.CancelScope:
    return trio.CancelScope(shield=True, deadline=trio.current_time() + _CLEAN_UP_SECONDS)


@final
class Subscription:
    """`run` is called once."""

    def __init__(
        self, connection: Connection, options: Options, request: SubscribeRequest, deliver: Deliver, name: str
    ) -> None:
        self._connection = connection
        self._options = options
        self._request = request
        self._deliver = deliver
        self._name = name
        self._own_inbox = f"_INBOX.{name}"
        self._inbox = Inbox(connection.warn)
        self._held: set[Held] = set()
        self._floor = Floor()
        self._positions = count(1)
        self._generation = connection.generation
        self._stream = ""
        self._consumer: Consumer

    async def run(self, lock: trio.Lock, stop: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """`lock`: one subscription at a time may look for a consumer of the shared name."""
        try:
            async with lock:
                await self._open()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep)
                nursery.start_soon(self._watch)
                await self._consume(stop, task_status)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = lone(group)
            raise error from error.__cause__
        finally:
            with _clean_up():
                await self._close()

    async def _open(self) -> None:
        topic = self._request.topic
        self._stream = self._options.stream_name or await find_stream(self._connection, topic)
        await self._find_consumer(None)
        client = await self._connection.client()
        consumer = self._consumer
        if not consumer.pulls and not consumer.deliver_group and consumer.bound:
            message = f"consumer {consumer.name} has a subscriber already; set queueGroupName to share it"
            raise ComponentUnavailable(message)
        subject = self._own_inbox if consumer.pulls else consumer.deliver_subject
        try:
            await on_asyncio(self._inbox.aio_open, client, subject, consumer.deliver_group)
        except (errors.Error, OSError, TimeoutError) as error:
            raise translated(error, self._connection.where) from error

    async def _find_consumer(self, start: int | None) -> None:
        self._consumer = await make(
            self._connection,
            self._options,
            self._stream,
            self._request.topic,
            self._name,
            self._own_inbox,
            start,
        )
        if start is None:
            self._floor.begins_after(self._consumer.last_delivered)

    async def _consume(self, stop: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        limit = self._request.max_in_flight or self._options.limit
        if self._consumer.ack_policy == "all":
            limit = 1  # each acknowledgement is one for all before it
        async with open_deliveries(limit=limit, stop=stop) as deliveries:
            task_status.started()
            try:
                while room := await deliveries.room():
                    await self._ask(room)
                    await deliveries.unless_stopped(self._arrival)
                    await self._begin(deliveries, room, stop)
            finally:
                await self._give_back_unbegun()

    async def _begin(self, deliveries: Deliveries, room: int, stop: trio.Event) -> None:
        if stop.is_set():
            return
        taken, answers = self._inbox.take(room)
        for held in taken:
            self._held.add(held)
            self._floor.begin(held.origin.sequence)
            deliveries.start(partial(self._handle, held, stop))
        if answers:
            await self._connection.send(*[(subject, b"", "") for subject in answers])

    async def _ask(self, room: int) -> None:
        """One pull request at a time: how much of several has come could not be told."""
        inbox, consumer = self._inbox, self._consumer
        if self._connection.is_closed:
            raise ComponentUnavailable(f"{self._connection.where}: the connection was given up")
        if not consumer.pulls or inbox.asked or not self._connection.is_up:
            return
        inbox.asked = min(room, consumer.most_requested) if consumer.most_requested > 0 else room
        subject = f"{self._connection.prefix}.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}"
        await self._connection.send((subject, _protocol.pull_request(inbox.asked), self._own_inbox))

    async def _arrival(self) -> None:
        """Returns when something has come, or should be asked for anew."""
        with trio.move_on_after(_SILENCE if self._consumer.pulls else _LOOK) as silence:
            await self._inbox.news()
        if self._inbox.refusal:
            self._connection.warn(f"{self._consumer.name} is refused messages: {self._inbox.refusal}")
            self._inbox.refusal = ""
            await trio.sleep(_PAUSE)
        elif not (silence.cancelled_caught or self._inbox.gone or self._renewed()):
            return
        self._inbox.asked = 0
        if self._connection.is_up:
            await self._look()

    def _renewed(self) -> bool:
        """Whether the connection is another than the last time."""
        before, self._generation = self._generation, self._connection.generation
        return before != self._generation

    async def _watch(self) -> None:
        while True:
            await self._connection.change()
            self._inbox.wake()

    async def _look(self) -> None:
        """Is the consumer there? One of our own is made again and goes on where the lost one was."""
        consumer = self._consumer
        try:
            found = await look_up(self._connection, consumer.stream, consumer.name)
        except ComponentUnavailable:
            return  # it will be tried again
        if found is not None:
            self._inbox.gone = False
        elif consumer.durable:
            raise ComponentUnavailable(f"consumer {consumer.name} of stream {consumer.stream} is gone")
        else:
            await self._find_consumer(self._floor.resume)
            self._inbox.gone = False

    async def _handle(self, held: Held, stop: trio.Event) -> None:
        outcome: Outcome | None = None
        message = self._message(held)
        try:
            outcome = await self._deliver(message)
            while outcome is Outcome.RETRY and self._consumer.ack_policy != "explicit" and not stop.is_set():
                with trio.move_on_after(self._pause(held)):
                    await stop.wait()
                if not stop.is_set():
                    outcome = None
                    outcome = await self._deliver(message)
        finally:
            self._held.discard(held)
            with _clean_up():
                await self._settle(held, outcome)

    async def _settle(self, held: Held, outcome: Outcome | None) -> None:
        last = 0 < self._consumer.max_deliver <= held.origin.delivered
        if outcome is Outcome.ACK or last:
            self._floor.done(held.origin.sequence)
        if self._consumer.ack_policy == "none":
            return
        if outcome is Outcome.ACK:
            answer = _protocol.ACK
        else:
            answer = _protocol.negative(self._pause(held) if outcome is Outcome.RETRY else 0)
        await self._connection.send((held.message.reply, answer, ""))

    def _pause(self, held: Held) -> float:
        pauses, wait = self._consumer.pauses, self._options.ack_wait
        if pauses:
            return pauses[min(held.origin.delivered, len(pauses)) - 1]
        return wait.total_seconds() if wait else _PAUSE

    def _message(self, held: Held) -> Message:
        """`Topic` is what Dapr's component gives; the rest is as NATS calls it."""
        message = held.message
        metadata = dict(message.headers or {})
        metadata["Topic"] = message.subject
        metadata["Nats-Sequence"] = str(held.origin.sequence)
        metadata["Nats-Num-Delivered"] = str(held.origin.delivered)
        return Message(self._request.topic, message.data, metadata=metadata, position=next(self._positions))

    async def _keep(self) -> None:
        """Tells the server, in time, of what is still ours."""
        if self._consumer.ack_policy == "none":
            return
        while True:
            await trio.sleep(max(_OFTEN, min((self._consumer.ack_wait, *self._consumer.pauses)) / 6))
            now = trio.current_time()
            due = [
                held
                for held in (*self._held, *self._inbox.waiting())
                if now - held.renewed >= self._consumer.lease(held.origin.delivered) / 3
            ]
            for held in due:
                held.renewed = now
            if due and self._connection.is_up:
                await self._connection.send(
                    *[(held.message.reply, _protocol.IN_PROGRESS, "") for held in due]
                )

    async def _give_back_unbegun(self) -> None:
        """First nothing more may come: then what has come and was not begun is given back."""
        inbox = self._inbox
        with _clean_up():
            try:
                if self._connection.is_up:
                    await self._connection.leave(inbox)
                    await look_up(self._connection, self._consumer.stream, self._consumer.name)
                    await on_asyncio(inbox.aio_settle)
            except ComponentError as error:
                self._connection.warn(f"the end of a subscription is not confirmed: {error}")
        taken, _ = inbox.take(len(inbox.waiting()))
        if taken and self._consumer.ack_policy != "none":
            with _clean_up():
                back = _protocol.negative()
                await self._connection.send(*[(held.message.reply, back, "") for held in taken])

    async def _close(self) -> None:
        """What was sent is with the server, and a consumer of our own is gone from it."""
        await on_asyncio(self._inbox.aio_forget)
        if not self._stream or not self._connection.is_up:
            return
        try:
            if self._options.durable_name:
                await look_up(self._connection, self._stream, self._options.durable_name)
            else:
                await self._connection.api(f"CONSUMER.DELETE.{self._stream}.{self._name}")
        except (ApiError, ComponentError) as error:
            self._connection.warn(f"the end of a subscription: {error}")
