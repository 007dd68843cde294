"""One subscription: what comes into its mailbox, delivered, until it is stopped.

MQTT knows no negative acknowledgement. A message that failed is tried again here, after a pause and without
being acknowledged meanwhile; it keeps its place among the deliveries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio
from attrs import frozen

from meshnode.interfaces import Outcome, open_deliveries
from meshnode_mqtt._held import Held
from meshnode_mqtt._session import Session

__all__ = ["Terms", "consume"]


@frozen
class Terms:
    """What is asked of a subscription. `retries`: how often a message is tried again; -1: without end.
    `forget`: the broker is to keep nothing for it once it has ended.
    """

    topic: str
    qos: int
    limit: int
    interval: float
    retries: int = -1
    forget: bool = False


async def consume(
    session: Session,
    terms: Terms,
    offer: Callable[[Held], Awaitable[Outcome]],
    stop: trio.Event,
    task_status: trio.TaskStatus[None],
) -> None:
    async with session.joined(terms.topic, terms.qos, forget=terms.forget) as mailbox:
        task_status.started()
        async with open_deliveries(limit=terms.limit, stop=stop) as deliveries:
            while room := await deliveries.room():
                await deliveries.unless_stopped(mailbox.news)
                if not stop.is_set():
                    for held in mailbox.take(room):
                        deliveries.start(partial(_handle, session, terms, held, offer, stop))


async def _handle(
    session: Session,
    terms: Terms,
    held: Held,
    offer: Callable[[Held], Awaitable[Outcome]],
    stop: trio.Event,
) -> None:
    outcome: Outcome | None = None
    tries = 0
    try:
        while outcome is not Outcome.ACK and not stop.is_set():
            if tries:
                with trio.move_on_after(terms.interval):
                    await stop.wait()
                    return
            outcome = None
            outcome = await offer(held)
            tries += 1
            if terms.retries != -1 and tries > terms.retries:
                return
    finally:
        if outcome is Outcome.ACK:
            session.done(held)
        else:
            session.put_back(held)
