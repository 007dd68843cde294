"""The wire contract as Python: generated messages, stubs and service bases, and the codec under them.

What `make generate` writes from proto/ lies below this package in one sub-package per protobuf package;
everything whose name starts with an underscore is written by hand. Import what you need, nothing is imported
here:

    from meshnode.wire.dapr.proto.common import v1 as common
    from meshnode.wire.dapr.proto.runtime import v1 as runtime      # Dapr, AppCallback, …
    from meshnode.wire.dapr.proto.components import v1 as components  # pluggable components
    from meshnode.wire.dapr.proto.internals import v1 as internals  # ServiceInvocation
    from meshnode.wire.dapr.proto.scheduler import v1 as scheduler  # Scheduler
    from meshnode.wire.google import protobuf, rpc
    from meshnode.wire.grpc.health import v1 as health              # Health
    from meshnode.wire.grpc.reflection import v1 as reflection      # ServerReflection
    from meshnode.wire.meshnode.admin import v1 as admin            # Admin

A service X is there as `XStub` for clients and `XBase` for servers.

Messages are betterproto2's classes: `bytes(message)` encodes, `Class.parse(data)` decodes and raises
`DecodeError` when `data` is no such message. Stubs take grpclib's `Channel` surface; their unary answers are
awaited, their streamed answers are an async context manager, because a call that streams has a task of its
own that must end with it:

    reply = await runtime.DaprStub(channel).get_state(runtime.GetStateRequest(store_name="s", key="k"))
    async with admin.AdminStub(channel).stream_logs(admin.StreamLogsRequest(tail=10)) as records:
        async for record in records: ...

May import: meshnode.errors, betterproto2, grpclib.const, grpclib.exceptions, trio.
"""

from __future__ import annotations

from ._defer import import_betterproto2
from ._errors import DecodeError

__all__ = ["DecodeError"]

import_betterproto2()
