"""The load by grpcio (asyncio), for those who want to see a client that is not ours.

It costs several times as much CPU per call as what it measures. Imports grpc and asyncio.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from itertools import cycle, islice
from time import perf_counter_ns
from typing import Any, final

import grpc
import grpc.aio

from _bench.measurement import Gate, Order, Recorder
from _bench.pacing import elapsed_ticks, ticking
from _bench.requests import Metadata, metadata

__all__ = ["measure"]

_WARM_IN_FLIGHT = 16
Item = tuple[int, Metadata]


def measure(order: Order, gate: Gate) -> Recorder:
    """One measurement on a connection of its own."""
    return asyncio.run(_measure(order, gate))


async def _measure(order: Order, gate: Gate) -> Recorder:
    own_connection = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(order.target, options=own_connection) as channel:
        await asyncio.wait_for(channel.channel_ready(), order.patience)
        items = metadata(order.request, order.seed)
        warm = _Load(order, channel, list(islice(items, order.warm_up)))
        await warm.closed(order.load.in_flight or _WARM_IN_FLIGHT)
        load = _Load(order, channel, list(islice(items, order.calls(warm.recorder.rate))))
        gc.collect()
        gc.disable()
        gate()
        if order.load.rate is not None:
            await load.open(order.load.rate)
        else:
            await load.closed(order.load.in_flight or 1)
        gc.enable()
        return load.recorder


@final
class _Load:
    """A number of calls, each with its own metadata."""

    def __init__(self, order: Order, channel: grpc.aio.Channel, items: list[Item]) -> None:
        self._method: Any = channel.unary_unary(order.request.path)
        self._messages = cycle(order.request.messages)
        self._reply_size = order.request.reply_size
        self._patience = order.patience
        self._items: Iterator[Item] = iter(items)
        self.recorder = Recorder(len(items))

    async def closed(self, in_flight: int) -> None:
        """So many callers, each of which waits for its answer before it calls again."""
        self.recorder.begin()
        try:
            async with asyncio.timeout(self._patience), asyncio.TaskGroup() as group:
                for _ in range(in_flight):
                    group.create_task(self._caller())
        except TimeoutError:
            pass  # what is missing is counted as unfinished
        self.recorder.end()

    async def open(self, rate: float) -> None:
        """Calls at fixed times; the latency of each counts from when it should have been sent."""
        step, sent, planned = 1e9 / rate, 0, self.recorder.planned
        loop, due = asyncio.get_running_loop(), asyncio.Event()
        self.recorder.begin()
        with ticking(rate) as clock:
            loop.add_reader(clock, due.set)
            begun = perf_counter_ns()
            try:
                async with asyncio.timeout(self._patience), asyncio.TaskGroup() as group:
                    while sent < planned:
                        await due.wait()
                        due.clear()
                        for _ in range(min(elapsed_ticks(clock), planned - sent)):
                            sent += 1
                            group.create_task(self._call(next(self._items), begun + int(sent * step)))
            except TimeoutError:
                pass  # what is missing is counted as unfinished
            finally:
                loop.remove_reader(clock)
        self.recorder.end()

    async def _caller(self) -> None:
        for item in self._items:
            await self._call(item, perf_counter_ns())

    async def _call(self, item: Item, begun: int) -> None:
        timeout, pairs = item
        try:
            reply = await self._method(next(self._messages), timeout=timeout / 1000, metadata=tuple(pairs))
        except grpc.aio.AioRpcError as error:
            self.recorder.errors[error.code().name] += 1
            return
        if self._reply_size is not None and len(reply) != self._reply_size:
            self.recorder.errors["wrong reply"] += 1
        else:
            self.recorder.latencies.append(perf_counter_ns() - begun)
