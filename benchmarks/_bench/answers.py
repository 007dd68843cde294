"""What the benchmark's applications answer: the echo service, and the methods that a node calls or serves.

Imports meshnode.wire for the messages.
"""

from __future__ import annotations

import random

from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Any as ProtoAny

__all__ = ["GET_STATE", "INVOKE", "ON_INVOKE", "SAVE_STATE", "fixed_answers", "invoke_request"]

ON_INVOKE = "/dapr.proto.runtime.v1.AppCallback/OnInvoke"
INVOKE = "/dapr.proto.runtime.v1.Dapr/InvokeService"
SAVE_STATE = "/dapr.proto.runtime.v1.Dapr/SaveState"
GET_STATE = "/dapr.proto.runtime.v1.Dapr/GetState"


def fixed_answers(size: int) -> dict[str, bytes]:
    """Encoded replies by method, with `size` bytes of payload: nothing is decoded to make them."""
    payload = random.Random(size).randbytes(size)
    invoked = common.InvokeResponse(data=ProtoAny(value=payload), content_type="application/octet-stream")
    return {
        ON_INVOKE: bytes(invoked),
        SAVE_STATE: b"",
        GET_STATE: bytes(runtime.GetStateResponse(data=payload, etag="1")),
    }


def invoke_request(size: int) -> common.InvokeRequest:
    """What one application asks of another by InvokeService."""
    payload = random.Random(size).randbytes(size)
    return common.InvokeRequest(
        method="echo", data=ProtoAny(value=payload), content_type="application/octet-stream"
    )
