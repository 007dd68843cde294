"""`bindings.rabbitmq`: one queue, written with `create` and read in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import trio
from aiormq.abc import DeliveredMessage

from meshnode.errors import BindingError, InvalidArgument
from meshnode.interfaces import BindingEvent, BindingRequest, BindingResult, DriverContext, Outcome, Receive
from meshnode_rabbitmq._binding_options import BindingOptions
from meshnode_rabbitmq._link import Link
from meshnode_rabbitmq._properties import binding_properties, event_metadata
from meshnode_rabbitmq._publisher import Publication, Publisher
from meshnode_rabbitmq._subscription import Manner, Source, follow
from meshnode_rabbitmq._topology import binding_queue

__all__ = ["RabbitBinding"]

_OPERATIONS = ("create",)


@final
class RabbitBinding:
    """An `OutputBinding` and an `InputBinding`. Both use one connection: an exclusive queue is open to the
    one that declared it only.
    """

    def __init__(
        self, options: BindingOptions, context: DriverContext, publisher: Publisher, link: Link
    ) -> None:
        self._options = options
        self._context = context
        self._publisher = publisher
        self._link = link

    @property
    def operations(self) -> Sequence[str]:
        return _OPERATIONS

    async def invoke(self, request: BindingRequest) -> BindingResult:
        if request.operation not in _OPERATIONS:
            raise InvalidArgument(f"bindings.rabbitmq has no operation {request.operation!r}, only create")
        await self._publisher.publish(self._publication(request))
        return BindingResult()

    def _publication(self, request: BindingRequest) -> Publication:
        try:
            publication = Publication(
                "",
                self._options.queue_name,
                request.data,
                binding_properties(
                    request.metadata,
                    content_type=self._options.content_type,
                    ttl=_ttl(request),
                    # A message without an id would come back unrecognised.
                    message_id=f"{self._context.rng.getrandbits(128):032x}",
                ),
                needs=binding_queue(self._options),
                mandatory=True,
            )
            publication.check()
        except ValueError as error:
            raise InvalidArgument(f"bindings.rabbitmq: {error}") from error
        return publication

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        async def handle(message: DeliveredMessage) -> Outcome:
            return await receive(BindingEvent(message.body, event_metadata(message)))

        queue = binding_queue(self._options)
        source = Source(queue.name, [queue], self._options.prefetch_count or 1)
        manner = Manner(1, self._options.redeliver_interval.total_seconds())
        await follow(self._link, source, manner, handle, stop, BindingError, task_status)


def _ttl(request: BindingRequest) -> float | None:
    """The request's `ttlInSeconds`. Raises `ValueError`."""
    text = next((value for key, value in request.metadata.items() if key.lower() == "ttlinseconds"), "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"ttlInSeconds: {text!r} is no whole number above 0")
    return float(text)
