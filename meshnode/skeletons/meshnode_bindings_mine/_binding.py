"""The binding: from meshnode's calls to the system's, and from its errors to meshnode's.

A binding that only gives or only takes leaves the other half out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import final

import trio
from meshnode.errors import BindingError, ComponentUnavailable, InvalidArgument, Status
from meshnode.interfaces import (
    BindingEvent,
    BindingRequest,
    BindingResult,
    Outcome,
    Receive,
    open_deliveries,
)

from meshnode_bindings_mine._options import Options
from meshnode_bindings_mine._system import Consumer, Full, Server, Stored

__all__ = ["Binding"]

_ACKNOWLEDGING_SECONDS = 2.0


@final
class Binding:
    """An `OutputBinding` that puts messages into a queue, and an `InputBinding` that takes them out."""

    def __init__(self, server: Server, options: Options) -> None:
        self._server = server
        self._options = options

    @property
    def operations(self) -> Sequence[str]:
        return ("create",)

    async def invoke(self, request: BindingRequest) -> BindingResult:
        if request.operation not in self.operations:
            allowed = ", ".join(self.operations)
            raise InvalidArgument(f"there is no operation {request.operation} (allowed: {allowed})")
        with _translated():
            number = await self._server.put(request.data, request.metadata)
        return BindingResult(metadata={"number": str(number)})

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        """Leaving `consuming`, however that happens, gives back at once what is not acknowledged."""
        with self._server.consuming() as consumer:
            async with open_deliveries(limit=self._options.concurrency, stop=stop) as deliveries:
                task_status.started()
                while room := await deliveries.room():
                    for stored in await deliveries.unless_stopped(partial(_take, consumer, room)) or ():
                        deliveries.start(partial(self._handle, consumer, stored, receive, stop))

    async def _handle(self, consumer: Consumer, stored: Stored, receive: Receive, stop: trio.Event) -> None:
        if await receive(BindingEvent(stored.data, stored.metadata)) is Outcome.ACK:
            # What was processed is not to come again because the node ends just now.
            with trio.move_on_after(_ACKNOWLEDGING_SECONDS, shield=True), _translated():
                await consumer.acknowledge(stored)
            return
        # It keeps its place among the deliveries: an application that fails everything is not fed faster.
        with trio.move_on_after(self._options.redeliver_interval.total_seconds()):
            await stop.wait()
        with _translated():
            await consumer.give_back(stored)

    async def ping(self) -> None:
        with _translated():
            await self._server.ping()


async def _take(consumer: Consumer, most: int) -> list[Stored]:
    with _translated():
        return await consumer.take(most)


@contextmanager
def _translated() -> Iterator[None]:
    """What the system's library raises becomes one of meshnode's errors here."""
    try:
        yield
    except OSError as error:
        raise ComponentUnavailable(str(error)) from error
    except Full as error:
        raise BindingError(str(error), status=Status.RESOURCE_EXHAUSTED) from error
