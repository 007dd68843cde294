"""Both ends of the pub/sub benchmark, each a program that takes orders as lines of JSON on stdin.

`python -m _bench.flow publisher` publishes; `python -m _bench.flow subscriber` is an application that takes
every event of one topic and notes how long it was under way. An event carries its time of sending as text,
which both read from the system's monotonic clock.

Imports meshnode.transport and meshnode.wire.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections import Counter
from collections.abc import Mapping
from time import perf_counter, perf_counter_ns
from typing import Any, final

import trio

from _bench.requests import frame
from _bench.stats import latency_summary
from meshnode.transport import (
    Channel,
    GRPCError,
    HeaderBlock,
    RawCall,
    Server,
    Status,
    open_channel,
    open_listeners,
    rules,
)
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["PUBSUB", "TOPIC", "main"]

PUBSUB, TOPIC = "bench", "events"
_PUBLISH = b"/dapr.proto.runtime.v1.Dapr/PublishEvent"
_ON_EVENT = b"/dapr.proto.runtime.v1.AppCallback/OnTopicEvent"
_LIST = b"/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions"
_MARK, _DIGITS = b"sent:", 20


def main() -> None:
    """Serve orders until stdin ends."""
    trio.run({"publisher": _publisher, "subscriber": _subscriber}[sys.argv[1]])


def _say(value: Mapping[str, Any]) -> None:
    print(json.dumps(value), flush=True)


async def _order() -> dict[str, Any] | None:
    line = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    found: dict[str, Any] | None = json.loads(line) if line else None
    return found


async def _publisher() -> None:
    _say({"ready": True})
    while (order := await _order()) is not None:
        async with open_channel(order["target"]) as channel:
            await channel.wait_ready()
            load = _Load(channel, order["size"], order["count"])
            begun = perf_counter()
            with trio.move_on_after(order["patience"]):
                async with trio.open_nursery() as nursery:
                    for _ in range(order["in_flight"]):
                        nursery.start_soon(load.publish)
            _say({"seconds": perf_counter() - begun, "latency_ms": latency_summary(load.latencies),
                  "errors": dict(load.errors)})  # fmt: skip


@final
class _Load:
    """A number of events, shared by callers that each wait for their answer."""

    def __init__(self, channel: Channel, size: int, count: int) -> None:
        self._channel = channel
        self._left = count
        self.latencies: array[int] = array("q")
        self.errors: Counter[str] = Counter()
        data = _MARK + b"0" * _DIGITS
        data += b"x" * (size - len(data))
        request = runtime.PublishEventRequest(
            pubsub_name=PUBSUB, topic=TOPIC, data=data, data_content_type="text/plain"
        )
        self._frame = frame(bytes(request))
        self._at = self._frame.index(_MARK) + len(_MARK)
        self._headers = [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", _PUBLISH),
            (b":authority", channel.authority.encode()), (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ]  # fmt: skip

    async def publish(self) -> None:
        at = self._at
        while self._left > 0:
            self._left -= 1
            begun = perf_counter_ns()
            text = b"%0*d" % (_DIGITS, begun)
            message = self._frame[:at] + text + self._frame[at + _DIGITS :]
            try:
                answer = await self._channel.unary_raw(self._headers, message)
                error = rules.result_of(answer.trailers)
            except GRPCError as lost:
                error = lost
            if error is None:
                self.latencies.append(perf_counter_ns() - begun)
            else:
                self.errors[error.status.name] += 1


async def _subscriber() -> None:
    tally = _Tally()
    listeners = await open_listeners("127.0.0.1:0")
    async with trio.open_nursery() as nursery:
        await nursery.start(Server(fallback=tally.answer).serve, listeners)
        _say({"address": f"127.0.0.1:{listeners[0].address.rpartition(':')[2]}"})
        while (order := await _order()) is not None:
            if "reset" in order:
                tally.reset()
                _say({"reset": True})
                continue
            with trio.move_on_after(order["patience"]):
                await tally.has(order["count"])
            _say(tally.figures())
        nursery.cancel_scope.cancel()


@final
class _Tally:
    """What has arrived since the last reset."""

    def __init__(self) -> None:
        self._headers = HeaderBlock(rules.RESPONSE_HEADERS)
        self._trailers = HeaderBlock(rules.OK_TRAILERS)
        wanted = runtime.TopicSubscription(pubsub_name=PUBSUB, topic=TOPIC)
        listed = runtime.ListTopicSubscriptionsResponse(subscriptions=[wanted])
        self._answers = {_LIST: frame(bytes(listed)), _ON_EVENT: frame(b"")}
        self.reset()

    def reset(self) -> None:
        self._latencies: array[int] = array("q")
        self._begun, self._last = 0.0, 0.0
        self._enough, self._wanted = trio.Event(), sys.maxsize

    async def answer(self, call: RawCall) -> None:
        message = await call.receive_frame()
        path = call.headers.get(b":path") or b""
        answer = self._answers.get(path)
        if answer is None:
            raise GRPCError(Status.UNIMPLEMENTED, "not a method of the benchmark's application")
        if path == _ON_EVENT:
            self._note(message or b"")
        await call.respond(self._headers, answer, self._trailers)

    def _note(self, message: bytes) -> None:
        at = message.index(_MARK) + len(_MARK)
        now = perf_counter_ns()
        sent = int(message[at : at + _DIGITS])
        self._begun = self._begun or sent / 1e9
        self._last = now / 1e9
        self._latencies.append(now - sent)
        if len(self._latencies) >= self._wanted:
            self._enough.set()

    async def has(self, count: int) -> None:
        self._wanted = count
        if len(self._latencies) < count:
            await self._enough.wait()

    def figures(self) -> dict[str, Any]:
        return {
            "received": len(self._latencies),
            "seconds": self._last - self._begun,
            "latency_ms": latency_summary(self._latencies),
        }


if __name__ == "__main__":
    main()
