"""Publishing, over a connection of its own.

With QoS 1 a publication is taken when the broker has sent PUBACK, with QoS 2 when the exchange is complete,
with QoS 0 when it is sent. What was under way when the connection broke may have been taken.

Its client id is random: Dapr's component publishes with the consumer's, so that two nodes which only publish
for one app id throw each other out.
"""

from __future__ import annotations

import random
from itertools import chain
from typing import final

import trio
from attrs import define

from meshnode.errors import ComponentUnavailable
from meshnode_mqtt import _packets
from meshnode_mqtt._link import Link, Login, dial
from meshnode_mqtt._packets import Ack, Packet, PingResp, Publish
from meshnode_mqtt._pause import Pause

__all__ = ["Publisher", "Ticket"]

_ANSWER_SECONDS = 5.0
_WINDOW = 20
"""Publications without an answer, those included whose callers have gone. A broker need not take more."""


@final
@define(eq=False)
class Ticket:
    """A publication that waits for its acknowledgement."""

    final: int
    answered: trio.Event
    lost: bool = False


@final
class Publisher:
    """`serve` runs for as long as the component is open."""

    def __init__(self, login: Login, rng: random.Random) -> None:
        self._login = login
        self._pause = Pause(rng)
        self._link: Link | None = None
        self._trouble = ""
        self._tickets: dict[int, Ticket] = {}
        self._window = trio.Semaphore(_WINDOW)
        self._last_id = 0
        self._end = trio.Event()
        self._pong = trio.Event()

    async def connect(self) -> None:
        """Before `serve`: the first connection's failure is the component's, later ones are repaired."""
        self._link, _ = await dial(self._login)

    def close(self, scope: trio.CancelScope) -> None:
        """Ends `serve`, which runs in that scope."""
        self._end.set()
        if self._link is None:
            scope.cancel()

    async def serve(self) -> None:
        """Until `close`."""
        while self._link is not None or not self._end.is_set():
            since = trio.current_time()
            try:
                if self._link is None:
                    self._link, _ = await dial(self._login)
                    since = trio.current_time()
                await self._link.run(self._on_packet, trio.lowlevel.checkpoint, self._end)
            except ComponentUnavailable as error:
                self._trouble = str(error)
            finally:
                lived = trio.current_time() - since if self._link is not None else 0
                self._lose()
            with trio.move_on_after(self._pause.after(lived)):
                await self._end.wait()

    def _lose(self) -> None:
        self._link = None
        self._pong.set()
        for ticket in self._tickets.values():
            ticket.lost = True
            ticket.answered.set()
            self._window.release()
        self._tickets.clear()

    async def publish(self, topic: str, data: bytes, *, qos: int, retain: bool) -> None:
        """Raises `ComponentUnavailable`; `ValueError` for what MQTT cannot carry."""
        ticket = await self.send(topic, data, qos=qos, retain=retain)
        await self.confirmed(ticket)

    async def send(self, topic: str, data: bytes, *, qos: int, retain: bool) -> Ticket | None:
        """What is sent first is taken first. To be given to `confirmed`."""
        if qos == 0:
            await trio.lowlevel.checkpoint()
            self._connected().put(_packets.publish(Publish(topic, data, 0, retain)))
            return None
        await self._window.acquire()
        try:
            link, number = self._connected(), self._new_id()
            link.put(_packets.publish(Publish(topic, data, qos, retain, packet_id=number)))
        except (ComponentUnavailable, ValueError):
            self._window.release()
            raise
        kind = _packets.PUBACK if qos == 1 else _packets.PUBCOMP
        self._tickets[number] = ticket = Ticket(kind, trio.Event())
        return ticket

    def _connected(self) -> Link:
        if self._link is None:
            raise ComponentUnavailable(self._trouble or f"{self._login.broker}: not connected yet")
        return self._link

    async def confirmed(self, ticket: Ticket | None) -> None:
        if ticket is None:
            if self._link is not None:
                await self._link.flush()
            return
        await ticket.answered.wait()
        if ticket.lost:
            raise ComponentUnavailable(f"{self._trouble}; the message may have been taken")

    def _new_id(self) -> int:
        after = range(self._last_id + 1, 0x10000)
        self._last_id = next(
            number for number in chain(after, range(1, 0x10000)) if number not in self._tickets
        )
        return self._last_id

    def _on_packet(self, packet: Packet) -> None:
        if isinstance(packet, PingResp):
            self._pong.set()
        if not isinstance(packet, Ack) or self._link is None:
            return
        if packet.kind == _packets.PUBREC:
            self._link.put(_packets.ack(_packets.PUBREL, packet.packet_id))
            return
        ticket = self._tickets.get(packet.packet_id)
        if ticket is not None and ticket.final == packet.kind:
            del self._tickets[packet.packet_id]
            ticket.answered.set()
            self._window.release()

    async def ping(self) -> None:
        link = self._link
        if link is not None:
            self._pong = pong = trio.Event()
            link.put(_packets.PINGREQ)
            with trio.move_on_after(_ANSWER_SECONDS):
                await pong.wait()
                if self._link is link:
                    return
        raise ComponentUnavailable(self._trouble or f"{self._login.broker}: no answer in time")
