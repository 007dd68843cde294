"""The publishing application: grpcio and the descriptors of the PyPI package `dapr`, nothing of meshnode.

Each key has a task that publishes one thing after another: single events, bursts of them, bulk calls. What
is not acknowledged is sent again, as an application would, or given up now and then.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import grpc.aio
from attrs import frozen
from dapr.proto.runtime.v1 import dapr_pb2_grpc, pubsub_pb2

from histories.records import Recorder

__all__ = ["APART", "PATIENCE", "RECONNECT", "Message", "Publisher"]

RECONNECT = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 250),
]
"""Channel options: nodes come back fast here."""

PATIENCE = 1.0
"""Seconds a call may take."""
_ATTEMPTS = 30
_GIVE_UP = 0.1
_PAUSE = 0.06
_BURST, _BULK = 0.12, 0.12
APART = 10_000


@final
@frozen
class Message:
    id: str
    key: str
    seq: int

    @property
    def data(self) -> bytes:
        return json.dumps({"id": self.id, "key": self.key, "seq": self.seq}).encode()


@final
class Publisher:
    """`settings`: name, records, address, pubsub, topic, keys, until (monotonic ns), seed."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._recorder = Recorder(Path(settings["records"]), settings["name"])
        self._rng = random.Random(f"{settings['seed']} {settings['name']} {self._recorder.incarnation}")
        self._calls = 0

    async def run(self) -> None:
        async with grpc.aio.insecure_channel(self._settings["address"], options=RECONNECT) as channel:
            stub = dapr_pb2_grpc.DaprStub(channel)  # type: ignore[no-untyped-call]
            async with asyncio.TaskGroup() as group:
                for number in range(self._settings["keys"]):
                    group.create_task(self._publish_key(stub, f"{self._settings['name']}-{number}"))

    async def _publish_key(self, stub: Any, key: str) -> None:
        seq = self._recorder.incarnation * APART
        while time.monotonic_ns() < self._settings["until"]:
            dice = self._rng.random()
            size = self._rng.randint(2, 12) if dice < _BURST + _BULK else 1
            messages = [Message(f"{key}-{seq + n}", key, seq + n) for n in range(size)]
            seq += size
            if dice < _BULK:
                await self._insist(stub, messages)
            else:
                for message in messages:
                    await self._insist(stub, [message])
            await asyncio.sleep(self._rng.uniform(0, _PAUSE))

    async def _insist(self, stub: Any, messages: Sequence[Message]) -> None:
        """Until all are acknowledged, or given up."""
        for _ in range(_ATTEMPTS):
            messages = await self._attempt(stub, messages)
            if not messages or self._rng.random() < _GIVE_UP:
                return
            await asyncio.sleep(self._rng.uniform(0.02, 0.3))

    async def _attempt(self, stub: Any, messages: Sequence[Message]) -> list[Message]:
        """One call; what was not acknowledged."""
        self._calls += 1
        call = f"{self._settings['name']}.{self._recorder.incarnation}.{self._calls}"
        for place, one in enumerate(messages):
            self._recorder.write("intent", id=one.id, key=one.key, seq=one.seq, call=call, place=place)
        reason = "in the answer"
        try:
            failed = await (self._one if len(messages) == 1 else self._bulk)(stub, messages)
        except grpc.aio.AioRpcError as error:
            failed, reason = {one.id for one in messages}, f"{error.code().name}: {error.details()}"
        for one in messages:
            if one.id in failed:
                self._recorder.write("failed", id=one.id, call=call, reason=reason)
            else:
                self._recorder.write("acknowledged", id=one.id, call=call)
        return [one for one in messages if one.id in failed]

    async def _one(self, stub: Any, messages: Sequence[Message]) -> set[str]:
        settings, (message,) = self._settings, messages
        request = pubsub_pb2.PublishEventRequest(
            pubsub_name=settings["pubsub"],
            topic=settings["topic"],
            data=message.data,
            data_content_type="application/json",
            metadata={"partitionKey": message.key},
        )
        await stub.PublishEvent(request, timeout=PATIENCE)
        return set()

    async def _bulk(self, stub: Any, messages: Sequence[Message]) -> set[str]:
        settings = self._settings
        request = pubsub_pb2.BulkPublishRequest(pubsub_name=settings["pubsub"], topic=settings["topic"])
        for one in messages:
            request.entries.add(
                entry_id=one.id,
                event=one.data,
                content_type="application/json",
                metadata={"partitionKey": one.key},
            )
        answer = await stub.BulkPublishEventAlpha1(request, timeout=PATIENCE)
        return {one.entry_id for one in answer.failedEntries}


if __name__ == "__main__":
    asyncio.run(Publisher(json.loads(sys.argv[1])).run())
