"""What the server has sent to one subscription and nobody has begun yet.

It is filled by nats-py's callback on the asyncio side and emptied by trio's. A pull consumer sends no more
than was asked for; a push consumer no more than its unacknowledged messages, or as flow control allows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import final

import trio
from attrs import define
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from meshnode_jetstream._protocol import Origin, negative, origin, status

__all__ = ["Held", "Inbox"]

_MOST = 10_000
"""Messages that are kept. More come only from a push consumer that someone made without limits."""
_GIVEN_BACK_FOR = 1.0


@final
@define(eq=False)
class Held:
    """A message that is ours. `renewed` is when the server last heard that it still is."""

    message: Msg
    origin: Origin
    renewed: float


@final
class Inbox:
    """`asked`: messages that a pull request under way may still bring."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._items: deque[Held | str] = deque()  # a string is where flow control is answered to
        self._news = trio.Event()
        self._subscription: Subscription | None = None
        self.asked = 0
        self.refusal = ""
        """Why the last pull request was not granted."""
        self.gone = False
        """The server says that the consumer is."""

    async def aio_open(self, client: Client, subject: str, queue: str) -> None:
        self._subscription = await client.subscribe(subject, queue=queue, cb=self._aio_receive)

    async def aio_leave(self, client: Client) -> None:
        """Tells the server to send nothing more. What it sent before still comes: nats-py's `unsubscribe`
        would drop it, and its `drain` waits in a way that ruins the connection when it is cancelled.
        """
        if self._subscription is not None:
            await client._send_unsubscribe(self._subscription._id)

    async def aio_settle(self) -> None:
        """Once the server has answered something since: all that came is here."""
        if self._subscription is not None:
            await self._subscription._pending_queue.join()

    async def aio_forget(self) -> None:
        """Last of all, whatever the server said: nats-py would subscribe again when it reconnects."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(errors.Error):  # the connection was given up, and the subscription with it
                await subscription.unsubscribe()

    async def _aio_receive(self, message: Msg) -> None:
        code, words = status(message.data, message.headers)
        if code:
            self._told(message, code, words)
        else:
            await self._aio_keep(message)
        self.wake()

    async def _aio_keep(self, message: Msg) -> None:
        self.asked = max(0, self.asked - 1)
        found = origin(message.reply)
        if found is None:
            self._log(f"a message on {message.subject} is from no consumer and is left alone")
        elif len(self._items) < _MOST:
            self._items.append(Held(message, found, trio.current_time()))
        else:
            await message.respond(negative(_GIVEN_BACK_FOR))

    def _told(self, message: Msg, code: int, words: str) -> None:
        if code == 100:
            answer = message.reply or (message.headers or {}).get("Nats-Consumer-Stalled", "")
            if answer:
                self._items.append(answer)
            return
        self.asked = 0
        if code == 409 and ("Deleted" in words or "push based" in words):
            self.gone = True
        elif code not in (404, 408):
            self.refusal = f"{code} {words}".strip()

    def wake(self) -> None:
        self._news.set()

    async def news(self) -> None:
        """Returns when there is something to take, or a word came about a request."""
        if not self._items:
            await self._news.wait()
        self._news = trio.Event()

    def take(self, most: int) -> tuple[list[Held], list[str]]:
        """The next messages, and what flow control is to be told now that they are begun."""
        taken: list[Held] = []
        answers: list[str] = []
        while self._items and (len(taken) < most or isinstance(self._items[0], str)):
            item = self._items.popleft()
            if isinstance(item, str):
                answers.append(item)
            else:
                taken.append(item)
        return taken, answers

    def waiting(self) -> list[Held]:
        return [item for item in self._items if isinstance(item, Held)]
