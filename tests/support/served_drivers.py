"""Drivers for a component's process: one broker for all components that it serves, and a binding whose input
tells what its output was given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import final

import trio
from attrs import frozen
from meshnode_pubsub_in_memory import Broker, MemoryPubSub, Options

from meshnode.errors import InvalidArgument
from meshnode.interfaces import (
    BindingEvent,
    BindingRequest,
    BindingResult,
    Driver,
    DriverContext,
    Message,
    Outcome,
    PublishRequest,
    Receive,
    SubscribeRequest,
    option,
)

__all__ = ["binding", "broker"]

broker = Broker().driver


@frozen
class LoopOptions:
    loop: str = option("loop", "What outputs and inputs of the same loop have in common.", default="loop")


@final
class Loop:
    operations = ("create", "echo")

    def __init__(self, topics: MemoryPubSub, loop: str) -> None:
        self._topics = topics
        self._loop = loop

    async def invoke(self, request: BindingRequest) -> BindingResult:
        if request.operation == "echo":
            return BindingResult(request.data, request.metadata)
        if request.operation != "create":
            raise InvalidArgument(f"no operation {request.operation!r}")
        await self._topics.publish(PublishRequest(self._loop, request.data))
        return BindingResult()

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        async def deliver(message: Message) -> Outcome:
            return await receive(BindingEvent(message.data, {"from": "loop"}))

        await self._topics.subscribe(SubscribeRequest(self._loop), deliver, stop, task_status=task_status)


@asynccontextmanager
async def _open(loop: LoopOptions, context: DriverContext) -> AsyncIterator[Loop]:
    options = Options(consumer_id="loop", redeliver_interval=timedelta(milliseconds=20))
    async with broker.open(options, context) as topics:
        yield Loop(topics, loop.loop)


binding: Driver[Loop] = Driver(type="bindings.loop", metadata=LoopOptions, open=_open)
