"""Closing aiokafka's clients within a bound.

Runs on the asyncio side. Left to itself, a producer closes when all its records are written and a consumer
when its coordinator has answered, so neither ends while the brokers are away. After a moment their
connections are closed under them, and what they wait for is called off. That takes aiokafka's internals,
here and nowhere else: another version of it needs another look at this module.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["close_consumer", "close_producer", "end"]

_PATIENCE = 1.5
"""For an orderly end, and again for the one that is forced, in seconds."""


async def end(task: asyncio.Future[Any] | None) -> None:
    """Cancels it, and waits until it has ended."""
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()


async def close_consumer(consumer: Any) -> None:
    """Leaves the group, if the coordinator is there to be told."""
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping}, timeout=_PATIENCE)
    if not stopping.done():
        await _cut(consumer._client)
        await asyncio.wait({stopping}, timeout=_PATIENCE)
    await end(stopping)
    if stopping.cancelled() or stopping.exception() is not None:
        await _drop(consumer)


async def close_producer(producer: Any) -> None:
    """What is not written yet has that moment; then it is dropped, for its callers are gone."""
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=_PATIENCE)
    if not stopping.done():
        await _force(producer)
        await asyncio.wait({stopping}, timeout=_PATIENCE)
    await end(stopping)


async def _force(producer: Any) -> None:
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()  # waits for the requests under way, which the next line ends
        await _cut(producer.client)
        await asyncio.wait({sender}, timeout=_PATIENCE)
        await end(sender)
    records = producer._message_accumulator
    for batches in (*records._batches.values(), tuple(records._pending_batches)):
        for batch in batches:
            records._pending_batches.add(batch)  # from where its own callback removes it
            batch.future.cancel()


async def _drop(consumer: Any) -> None:
    """What `stop` leaves behind when it fails half-way."""
    group = consumer._coordinator
    if group is not None:
        for task in (group._coordination_task, group._heartbeat_task, group._commit_refresh_task):
            await end(task)
    if consumer._fetcher is not None:
        await consumer._fetcher.close()
    await consumer._client.close()


async def _cut(client: Any) -> None:
    """No connection any more, and nobody who waits for the metadata that would have come over one."""
    await client.close()
    waiting = client._md_update_fut
    if waiting is not None and not waiting.done():
        waiting.set_result(False)

    def no_update() -> asyncio.Future[bool]:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        answer.set_result(False)
        return answer

    client.force_metadata_update = no_update
