"""The load by meshnode's own channel, in raw frames: the lightest client there is, so that it takes little of
the processor from what is measured.

Imports meshnode.transport and trio.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import cycle, islice
from time import perf_counter_ns
from typing import final

import trio

from _bench.blocks import header_blocks
from _bench.measurement import Gate, Order, Recorder
from _bench.pacing import elapsed_ticks, ticking
from _bench.requests import frame
from meshnode.transport import Channel, ConnectionLost, GRPCError, RawClientCall, Status, open_channel

__all__ = ["measure"]

_WARM_IN_FLIGHT = 16
_STREAMS = 100
"""Calls on one connection that every server allows. A call above a server's limit would wait inside the
channel, which would mix up the order of the blocks.
"""


def measure(order: Order, gate: Gate) -> Recorder:
    """One measurement on a connection of its own."""
    return trio.run(_measure, order, gate)


async def _measure(order: Order, gate: Gate) -> Recorder:
    async with open_channel(order.target) as channel:
        with trio.fail_after(order.patience):
            await channel.wait_ready()
        blocks = header_blocks(order.request, channel.authority, order.seed)
        warm = _Load(order, channel, list(islice(blocks, order.warm_up)))
        await warm.closed(order.load.in_flight or _WARM_IN_FLIGHT)
        load = _Load(order, channel, list(islice(blocks, order.calls(warm.recorder.rate))))
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
    """A number of calls, one for each header block."""

    def __init__(self, order: Order, channel: Channel, blocks: list[bytes]) -> None:
        self._channel = channel
        self._frames = cycle([frame(message) for message in order.request.messages])
        self._reply_size = None if order.request.reply_size is None else order.request.reply_size + 5
        self._patience = order.patience
        self._blocks: Iterator[bytes] = iter(blocks)
        self._slots = trio.Semaphore(_STREAMS)
        self._lost = False
        self.recorder = Recorder(len(blocks))

    async def closed(self, in_flight: int) -> None:
        """So many callers, each of which waits for its answer before it calls again."""
        self.recorder.begin()
        with trio.move_on_after(self._patience):
            async with trio.open_nursery() as nursery:
                for _ in range(min(in_flight, _STREAMS)):
                    nursery.start_soon(self._caller)
        self.recorder.end()

    async def open(self, rate: float) -> None:
        """Calls at fixed times; the latency of each counts from when it should have been sent."""
        step, sent, planned = 1e9 / rate, 0, self.recorder.planned
        self.recorder.begin()
        with trio.move_on_after(self._patience), ticking(rate) as clock:
            begun = perf_counter_ns()
            async with trio.open_nursery() as nursery:
                while sent < planned:
                    await trio.lowlevel.wait_readable(clock)
                    for _ in range(min(elapsed_ticks(clock), planned - sent)):
                        sent += 1
                        nursery.start_soon(self._scheduled, begun + int(sent * step))
        self.recorder.end()

    async def _caller(self) -> None:
        for block in self._blocks:
            if self._lost:
                return
            await self._call(block, perf_counter_ns())

    async def _scheduled(self, due: int) -> None:
        async with self._slots:
            # Taken now, not by whoever starts the task: tasks start in any order, blocks fit in theirs.
            if not self._lost:
                await self._call(next(self._blocks), due)

    async def _call(self, block: bytes, begun: int) -> None:
        call = RawClientCall(self._channel, block)
        try:
            await call.begin_unary(next(self._frames))
            reply = await call.receive_frame()
            if reply is not None:
                await call.receive_frame()
            status = call.trailers.get(b"grpc-status")
        except GRPCError as error:
            # The next connection's table would not fit the blocks that are left.
            self._lost = self._lost or isinstance(error, ConnectionLost)
            self.recorder.errors[error.status.name] += 1
            return
        if status != b"0":
            self.recorder.errors[_name(status)] += 1
        elif self._reply_size is not None and len(reply or b"") != self._reply_size:
            self.recorder.errors["wrong reply"] += 1
        else:
            self.recorder.latencies.append(perf_counter_ns() - begun)


def _name(status: bytes | None) -> str:
    try:
        return Status(int(status or b"2")).name
    except ValueError:
        return "UNKNOWN"
