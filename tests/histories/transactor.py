"""The application that saves state in transactions: grpcio and the descriptors of the PyPI package `dapr`.

Each transaction saves one to three items that nobody has saved before, and is tried once. Started with
`audit`, it reads all that was ever intended, and writes down what is there.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import grpc.aio
from dapr.proto.runtime.v1 import dapr_pb2_grpc, state_pb2

from histories.publisher import APART, PATIENCE, RECONNECT, Message
from histories.records import Recorder, read_records

__all__ = ["Transactor"]

_PAUSE = 0.03
_AT_ONCE = 100


@final
class Transactor:
    """`settings`: name, records, address, store, keys (transactions side by side), seed, `over` (the file
    that ends it); or `audit`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._recorder = Recorder(Path(settings["records"]), settings["name"])
        self._rng = random.Random(f"{settings['seed']} {settings['name']} {self._recorder.incarnation}")

    async def run(self) -> None:
        async with grpc.aio.insecure_channel(self._settings["address"], options=RECONNECT) as channel:
            stub = dapr_pb2_grpc.DaprStub(channel)  # type: ignore[no-untyped-call]
            if self._settings.get("audit"):
                await self._audit(stub)
                return
            async with asyncio.TaskGroup() as group:
                for number in range(self._settings["keys"]):
                    group.create_task(self._transact(stub, f"{self._settings['name']}-{number}"))

    async def _transact(self, stub: Any, key: str) -> None:
        seq = self._recorder.incarnation * APART
        while not self._is_over():
            call = f"{key}-{seq}"
            size = self._rng.choice([1, 1, 2, 3])
            await self._attempt(stub, call, [Message(f"{call}-{n}", key, seq) for n in range(size)])
            seq += 1
            await asyncio.sleep(self._rng.uniform(0, _PAUSE))

    def _is_over(self) -> bool:
        return Path(self._settings["over"]).exists()

    async def _attempt(self, stub: Any, call: str, items: Sequence[Message]) -> None:
        request = state_pb2.ExecuteStateTransactionRequest(storeName=self._settings["store"])
        for place, one in enumerate(items):
            self._recorder.write("intent", id=one.id, key=one.key, seq=one.seq, call=call, place=place)
            operation = request.operations.add(operationType="upsert")
            operation.request.key = one.id
            operation.request.value = one.data
            operation.request.metadata["contentType"] = "application/json"
        try:
            await stub.ExecuteStateTransaction(request, timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
            self._recorder.write("failed", id=call, call=call, reason=reason)
            await asyncio.sleep(self._rng.uniform(0, 0.2))
        else:
            self._recorder.write("acknowledged", id=call, call=call)

    async def _audit(self, stub: Any) -> None:
        records = read_records(Path(self._settings["records"]))
        keys = [one["id"] for one in records if one["what"] == "intent"]
        for start in range(0, len(keys), _AT_ONCE):
            request = state_pb2.GetBulkStateRequest(
                store_name=self._settings["store"], keys=keys[start : start + _AT_ONCE]
            )
            for item in (await stub.GetBulkState(request, wait_for_ready=True, timeout=30)).items:
                assert not item.error, item.error
                if item.data:
                    self._recorder.write("found", id=item.key)
        self._recorder.write("audited")


if __name__ == "__main__":
    asyncio.run(Transactor(json.loads(sys.argv[1])).run())
