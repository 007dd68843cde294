"""The session of one client id: one connection for all subscriptions of a component, while there are any.

The broker keeps the session while nobody is connected (unless `cleanSession`), and a message until it is
acknowledged, which happens when its delivery has ended. So nothing has to be given back: what is not
acknowledged is the session's, in this process as long as a connection lasts, then with the broker.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import final

import trio

from meshnode.errors import ComponentUnavailable, PubSubError
from meshnode_mqtt import _packets
from meshnode_mqtt._held import Held, HeldMessages
from meshnode_mqtt._link import Link, Login, dial
from meshnode_mqtt._packets import Ack, Packet, Publish, SubAck
from meshnode_mqtt._pause import Pause
from meshnode_mqtt._topics import matches

__all__ = ["Mailbox", "Session"]

_MOST = 1000
"""Messages in this process. A broker's own limit (mosquitto's is 20) is usually reached before."""
_LEAVING_SECONDS = 2.0


@final
class Mailbox:
    """What has come for one subscription and is not begun."""

    def __init__(self, pattern: str, qos: int) -> None:
        self.pattern = pattern
        self.qos = qos
        self.confirmed = False
        """The session at the broker has the subscription."""
        self.waiting: deque[Held] = deque()
        self._news = trio.Event()

    def put(self, held: Held) -> None:
        self.waiting.append(held)
        self._news.set()

    async def news(self) -> None:
        """Returns when there is something to take."""
        while not self.waiting:
            self._news = trio.Event()
            await self._news.wait()

    def take(self, most: int) -> list[Held]:
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]


@final
class Session:
    """`serve` runs for as long as the component is open."""

    def __init__(self, login: Login, rng: random.Random, log: logging.Logger) -> None:
        self._login = login
        self._log = log
        self._pause = Pause(rng)
        self._held = HeldMessages(self._acknowledge)
        self._mailboxes: list[Mailbox] = []
        self._link: Link | None = None
        self._end = trio.Event()
        self._change = trio.Event()
        self._failures = 0
        self._trouble = ""
        self._last_id = 0
        self._answers: dict[int, int | None] = {}

    # What subscriptions call

    @asynccontextmanager
    async def joined(self, pattern: str, qos: int, *, forget: bool) -> AsyncIterator[Mailbox]:
        """A mailbox for the topic, which the broker has confirmed. `forget`: the broker is told in the end
        that nobody wants it any longer; otherwise the session keeps what comes for it.
        """
        if any(one.pattern == pattern for one in self._mailboxes):
            raise PubSubError(f"{pattern}: the component has a subscription to this topic already")
        mailbox = Mailbox(pattern, qos)
        for held in self._held.unpark(partial(matches, pattern)):
            mailbox.put(held)
        self._mailboxes.append(mailbox)
        self._changed()
        try:
            await self._subscribe(await self._connected(), mailbox)
            yield mailbox
        finally:
            self._mailboxes.remove(mailbox)
            self._held.park(mailbox.waiting)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LEAVING_SECONDS):
                await self._leave(mailbox, forget=forget or self._login.clean)

    def done(self, held: Held) -> None:
        self._held.finish(held)
        self._changed()

    def put_back(self, held: Held) -> None:
        self._held.park([held])

    # What happens to one subscription

    async def _connected(self) -> Link:
        failures = self._failures
        while self._link is None or self._end.is_set():
            if self._failures > failures:
                raise ComponentUnavailable(self._trouble)
            await self._change.wait()
        return self._link

    async def _subscribe(self, link: Link, mailbox: Mailbox) -> None:
        number = self._question()
        link.put(_packets.subscribe(number, mailbox.pattern, mailbox.qos))
        granted = await self._answer(link, number)
        if granted > 2:
            raise PubSubError(f"{self._login.broker} refuses the subscription to {mailbox.pattern}")
        mailbox.confirmed = True

    async def _leave(self, mailbox: Mailbox, *, forget: bool) -> None:
        link = self._link
        if link is not None and forget:
            number = self._question()
            link.put(_packets.unsubscribe(number, mailbox.pattern))
            try:
                await self._answer(link, number)
            except ComponentUnavailable as error:
                self._log.warning("leaving %s: %s", mailbox.pattern, error)
        if not self._mailboxes:
            self._end.set()
            while self._link is not None and not self._mailboxes:
                await self._change.wait()

    def _question(self) -> int:
        self._last_id = self._last_id % 0xFFFF + 1
        self._answers[self._last_id] = None
        self._changed()
        return self._last_id

    async def _answer(self, link: Link, number: int) -> int:
        try:
            while (answer := self._answers[number]) is None:
                if self._link is not link:
                    raise ComponentUnavailable(self._trouble or f"{self._login.broker}: the connection ended")
                await self._change.wait()
            return answer
        finally:
            del self._answers[number]

    # The connection

    async def serve(self) -> None:
        """Connected while there are subscriptions."""
        while True:
            while not self._mailboxes:
                await self._change.wait()
            since = trio.current_time()
            try:
                link, present = await dial(self._login)
                since = trio.current_time()
                await self._run(link, present)
            except ComponentUnavailable as error:
                self._trouble = str(error)
                self._failures += 1
                self._log.warning("%s: %s", self._login.client_id, error)
                self._changed()
                await self._rest(self._pause.after(trio.current_time() - since))

    async def _rest(self, seconds: float) -> None:
        """A subscription that begins need not wait."""
        before = len(self._mailboxes)
        with trio.move_on_after(seconds):
            while len(self._mailboxes) <= before:
                await self._change.wait()

    async def _run(self, link: Link, present: bool) -> None:
        # A session that the broker kept has our subscriptions, and subscribing again would repeat what it
        # retains. One that begins subscribes for itself.
        lost = [] if present else [one for one in self._mailboxes if one.confirmed]
        self._end = trio.Event()
        self._held.connected(session_present=present)
        self._link = link
        for mailbox in lost:
            link.put(_packets.subscribe(self._unasked(), mailbox.pattern, mailbox.qos))
        self._changed()
        if not self._mailboxes:
            self._end.set()
        try:
            await link.run(self._on_packet, self._room, self._end)
        finally:
            self._link = None
            self._held.disconnected()
            if not self._mailboxes:
                self._held.forget()
            self._changed()

    def _unasked(self) -> int:
        """The number of a packet whose answer nobody waits for."""
        self._last_id = self._last_id % 0xFFFF + 1
        return self._last_id

    async def _room(self) -> None:
        # Whoever waits for an answer must be able to begin to take.
        while len(self._held) + self._waiting() >= _MOST and not self._answers:
            await self._change.wait()

    def _waiting(self) -> int:
        return sum([1 for one in self._mailboxes for held in one.waiting if not held.packet_id])

    def _on_packet(self, packet: Packet) -> None:
        if isinstance(packet, Publish):
            held = self._held.receive(packet)
            if held is not None:
                self._route(held)
        elif isinstance(packet, SubAck):
            self._answered(packet.packet_id, packet.codes[0])
        elif isinstance(packet, Ack):
            if packet.kind == _packets.PUBREL and self._link is not None:
                self._link.put(_packets.ack(_packets.PUBCOMP, packet.packet_id))
            elif packet.kind == _packets.UNSUBACK:
                self._answered(packet.packet_id, 0)

    def _route(self, held: Held) -> None:
        """To one subscription: overlapping ones would share the acknowledgement."""
        for exact in (True, False):
            for mailbox in self._mailboxes:
                topic = held.packet.topic
                if (mailbox.pattern == topic) if exact else matches(mailbox.pattern, topic):
                    mailbox.put(held)
                    return
        self._held.park([held])

    def _answered(self, number: int, code: int) -> None:
        if number in self._answers:
            self._answers[number] = code
        elif code > 2:
            raise _packets.ProtocolError("a subscription that was granted before is refused")
        self._changed()

    def _acknowledge(self, packet_id: int, qos: int) -> None:
        if self._link is not None:
            kind = _packets.PUBACK if qos == 1 else _packets.PUBREC
            self._link.put(_packets.ack(kind, packet_id))

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()
