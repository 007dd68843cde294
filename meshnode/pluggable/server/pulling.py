"""A stream of deliveries and their acknowledgements: PullMessages and Read.

A delivery ends when its acknowledgement comes. The stream's end is the end of the subscription: what was
acknowledged is finished, what was not belongs to the driver's source again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, final

import trio

from meshnode.api.service import Stream
from meshnode.interfaces import Outcome
from meshnode.pluggable.names import ATTENTIVE
from meshnode.pluggable.server.instances import Instance

__all__ = ["Begin", "pull"]

Begin = Callable[..., Awaitable[None]]
"""Takes (deliver, stop) and `task_status`: the driver's `subscribe` or `read`."""

_FINISHING_SECONDS = 1.0


@final
class _Delivery:
    def __init__(self) -> None:
        self.acknowledged = trio.Event()
        self.outcome = Outcome.RETRY


@final
class _Deliveries:
    """Those under way, by the identifiers that the stream knows them by."""

    def __init__(self, instance: Instance, stream: Stream, message_of: Callable[[Any, str], Any]) -> None:
        self._instance = instance
        self._stream = stream
        self._message_of = message_of
        self._identifiers = map(str, count(1))
        self._sending = trio.Lock()
        self._under_way: dict[str, _Delivery] = {}

    @property
    def waiting(self) -> bool:
        """Whether there is one without acknowledgement."""
        return any(not one.acknowledged.is_set() for one in self._under_way.values())

    async def deliver(self, event: Any) -> Outcome:
        await self._instance.until_resumed()
        identifier, delivery = next(self._identifiers), _Delivery()
        self._under_way[identifier] = delivery
        try:
            async with self._sending:
                await self._stream.send_message(self._message_of(event, identifier))
            await delivery.acknowledged.wait()
        finally:
            del self._under_way[identifier]
        return delivery.outcome

    def acknowledge(self, identifier: str, outcome: Outcome) -> None:
        """An identifier that nobody knows is none of ours: it was acknowledged before, or made up."""
        delivery = self._under_way.get(identifier)
        if delivery is not None:
            delivery.outcome = outcome
            delivery.acknowledged.set()


async def pull(
    instance: Instance,
    stream: Stream,
    begin: Begin,
    message_of: Callable[[Any, str], Any],
    answer_of: Callable[[Any], tuple[str, Outcome]],
) -> None:
    """Until the caller ends its side. `message_of` makes a message of an event and an identifier,
    `answer_of` takes the latter and the outcome out of what comes back.
    """
    deliveries = _Deliveries(instance, stream, message_of)
    stop = trio.Event()

    async def subscription(*, task_status: trio.TaskStatus[None]) -> None:
        await begin(deliveries.deliver, stop, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(subscription)
        await stream.send_initial_metadata(metadata={ATTENTIVE: "true"})
        async for request in stream:
            deliveries.acknowledge(*answer_of(request))
        # The driver may still be about to acknowledge at its source; what waits for us will wait in vain.
        stop.set()
        patience = 0.0 if deliveries.waiting else _FINISHING_SECONDS
        nursery.cancel_scope.deadline = trio.current_time() + patience
