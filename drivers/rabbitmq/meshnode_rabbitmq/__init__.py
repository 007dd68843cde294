"""`pubsub.rabbitmq` and `bindings.rabbitmq`, on the exchanges and queues of Dapr's components of those names.

Imports meshnode.interfaces and meshnode.errors only. aiormq speaks asyncio: what talks to it runs behind the
node's one trio-asyncio loop.

    _address.py          where the broker is, TLS, logging in
    _pubsub_options.py   the metadata fields of the broker
    _binding_options.py  the metadata fields of the binding
    _topology.py         what is declared; no I/O
    _properties.py       metadata to message properties and back; no I/O
    _link.py             a connection that is made anew when it has broken (asyncio), the bridge to trio
    _publisher.py        publications on their way to their confirms (both sides)
    _consumer.py         a consumer and its buffer (both sides)
    _subscription.py     a consumer's messages, delivered side by side (trio)
    _pubsub.py           the broker (trio)
    _binding.py          the binding (trio)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from math import ceil

import trio

from meshnode.errors import BindingError, PubSubError
from meshnode.interfaces import Driver, DriverContext
from meshnode_rabbitmq._binding import RabbitBinding
from meshnode_rabbitmq._binding_options import BindingOptions
from meshnode_rabbitmq._link import TROUBLE, Link, on_asyncio, translated
from meshnode_rabbitmq._publisher import Publisher, Refusal
from meshnode_rabbitmq._pubsub import RabbitPubSub
from meshnode_rabbitmq._pubsub_options import PubSubOptions
from meshnode_rabbitmq._topology import Part, binding_queue

__all__ = ["BindingOptions", "PubSubOptions", "RabbitBinding", "RabbitPubSub", "binding", "pubsub"]

_FAREWELL = 10


@asynccontextmanager
async def _publishing(link: Link, refusal: Refusal, needs: Sequence[Part] = ()) -> AsyncIterator[Publisher]:
    """A publisher at work, once the broker has answered."""
    publisher = Publisher(link, refusal)
    try:
        await on_asyncio(partial(publisher.prepare, needs))
    except TROUBLE as error:
        raise translated(link.address, error, refusal) from error
    async with trio.open_nursery() as nursery:
        nursery.start_soon(on_asyncio, publisher.run)
        yield publisher
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _closing(*links: Link) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL):
            for link in links:
                await on_asyncio(link.close)


@asynccontextmanager
async def _open_pubsub(options: PubSubOptions, context: DriverContext) -> AsyncIterator[RabbitPubSub]:
    if options.requeue_in_failure is False and not options.enable_dead_letter:
        context.log.warning(
            "%s: requeueInFailure is false without enableDeadLetter: the broker drops messages that fail",
            context.component,
        )
    links = [
        Link(
            options.address,
            options.tls,
            heartbeat=ceil(options.heart_beat.total_seconds()),
            name=options.client_name,
        )
        for _ in range(2)
    ]
    async with _closing(*links), _publishing(links[0], PubSubError) as publisher:
        yield RabbitPubSub(options, context, publisher, *links)


@asynccontextmanager
async def _open_binding(options: BindingOptions, context: DriverContext) -> AsyncIterator[RabbitBinding]:
    link = Link(options.address, options.tls)
    async with (
        _closing(link),
        _publishing(link, BindingError, [binding_queue(options)]) as publisher,
    ):
        yield RabbitBinding(options, context, publisher, link)


pubsub: Driver[RabbitPubSub] = Driver(
    type="pubsub.rabbitmq",
    metadata=PubSubOptions,
    open=_open_pubsub,
    summary="Topics on RabbitMQ: exchanges, and a queue for each consumer group.",
    needs_asyncio=True,
)

binding: Driver[RabbitBinding] = Driver(
    type="bindings.rabbitmq",
    metadata=BindingOptions,
    open=_open_binding,
    summary="A queue on RabbitMQ, read and written.",
    needs_asyncio=True,
)
