"""The calls of the state benchmarks. Imports meshnode.transport and meshnode.wire."""

from __future__ import annotations

import random

from _bench.answers import GET_STATE, SAVE_STATE
from _bench.processes import Failure
from _bench.requests import Request, frame
from meshnode.transport import open_channel, rules
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["fill", "state_requests"]

_KEYS = 64


def state_requests(store: str, size: int, *, varying: bool) -> dict[str, Request]:
    """The same few keys over and over; every call that finds nothing would make the other ones look good."""
    value = random.Random(1).randbytes(size)
    keys = [f"order-{number}" for number in range(_KEYS)]
    saves = [
        bytes(runtime.SaveStateRequest(store_name=store, states=[common.StateItem(key=key, value=value)]))
        for key in keys
    ]
    gets = [bytes(runtime.GetStateRequest(store_name=store, key=key)) for key in keys]
    return {
        "save": Request(SAVE_STATE, saves, [], varying),
        "get": Request(GET_STATE, gets, [], varying),
    }


async def fill(address: str, save: Request) -> None:
    """Every key once, so that there is something to get."""
    async with open_channel(address) as channel:
        headers = [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", save.path.encode()),
            (b":authority", channel.authority.encode()), (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ]  # fmt: skip
        for message in save.messages:
            answer = await channel.unary_raw(headers, frame(message))
            error = rules.result_of(answer.trailers)
            if error is not None:
                raise Failure(f"SaveState at {address}: {error.status.name} {error.message}")
