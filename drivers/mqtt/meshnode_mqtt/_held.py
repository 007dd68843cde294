"""What a session has received and not acknowledged. No I/O.

The broker knows a message by its packet id. After a reconnection it sends everything unacknowledged again,
with the same id and the DUP flag: what we still have is recognised, stays where it is, and can be
acknowledged over the new connection. Where the broker has lost the session, what we have is ours alone.

What belongs to a subscription that has ended is kept for the next one (`parked`): it is the session's, and
the broker would not send it again over this connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import final

from attrs import define

from meshnode_mqtt._packets import Publish

__all__ = ["Held", "HeldMessages"]


@final
@define(eq=False)
class Held:
    """`packet_id` is 0 when the broker does not wait for an acknowledgement (any more). `connection` is the
    number of the connection over which it may be acknowledged. `finished`: it is to be, as soon as possible.
    """

    packet: Publish
    position: int
    packet_id: int
    connection: int
    finished: bool = False


@final
class HeldMessages:
    """`acknowledge` is called with the id and QoS of what the broker is to be told is done."""

    def __init__(self, acknowledge: Callable[[int, int], None]) -> None:
        self._acknowledge = acknowledge
        self._by_id: dict[int, Held] = {}
        self._parked: list[Held] = []
        self._connection = 0
        self._connected = False
        self._position = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def connected(self, *, session_present: bool) -> None:
        self._connection += 1
        self._connected = True
        if not session_present:
            for held in self._by_id.values():
                held.packet_id = 0
            self._by_id.clear()

    def disconnected(self) -> None:
        self._connected = False

    def forget(self) -> None:
        """The session is the broker's again, with everything in it."""
        self._by_id.clear()
        self._parked.clear()

    def receive(self, packet: Publish) -> Held | None:
        """A message to deliver; None for one that we have."""
        known = self._by_id.get(packet.packet_id) if packet.qos else None
        if known is not None:
            if packet.dup and (known.packet.topic, known.packet.data) == (packet.topic, packet.data):
                known.connection = self._connection
                if known.finished:
                    self.finish(known)
                return None
            known.packet_id = 0  # the broker gave the number to another
        self._position += 1
        held = Held(packet, self._position, packet.packet_id, self._connection)
        if packet.qos:
            self._by_id[packet.packet_id] = held
        return held

    def finish(self, held: Held) -> None:
        """It is done, and the broker learns of it now or when it sends it again."""
        held.finished = True
        if not held.packet_id:
            return
        if self._connected and held.connection == self._connection:
            del self._by_id[held.packet_id]
            self._acknowledge(held.packet_id, held.packet.qos)
            held.packet_id = 0

    def park(self, messages: Iterable[Held]) -> None:
        """Messages with no subscription. Without acknowledgement (QoS 0) there is nothing to keep."""
        self._parked += [held for held in messages if held.packet.qos]
        self._parked.sort(key=lambda held: held.position)

    def unpark(self, wanted: Callable[[str], bool]) -> list[Held]:
        """Those for a subscription that begins, in order."""
        found = [held for held in self._parked if wanted(held.packet.topic)]
        self._parked = [held for held in self._parked if held not in found]
        return found
