"""The subscribing application: grpcio and the descriptors of the PyPI package `dapr`, nothing of meshnode.

Three styles: `callback` (OnTopicEvent), `bulk` (OnBulkTopicEventAlpha1) and `stream`
(SubscribeTopicEventsAlpha1).
A receipt is written before anything else happens, an answer before it is given. Some deliveries are
answered RETRY, some raise (a stream: it is closed), some take their time.
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
from dapr.proto.runtime.v1 import appcallback_pb2, appcallback_pb2_grpc, dapr_pb2_grpc, pubsub_pb2

from histories.publisher import RECONNECT
from histories.records import Recorder

__all__ = ["Subscriber"]

Reply = appcallback_pb2.TopicEventResponse

_RETRY, _RAISE, _SLOW = 0.02, 0.01, 0.02
_BULK_MOST, _BULK_AWAIT_MS = 20, 20


class Refused(Exception):
    """This delivery ends in an exception."""


@final
class Inbox:
    """Writes down what comes and decides what is answered."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._recorder = Recorder(Path(settings["records"]), settings["name"])
        self._name = f"{settings['name']}.{self._recorder.incarnation}"
        self._rng = random.Random(f"{settings['seed']} {self._name}")
        self._deliveries = 0

    def note(self, what: str) -> None:
        self._recorder.write(what)

    async def take(self, copy: str, data: bytes) -> Any:
        """The status to answer. Raises `Refused`."""
        return (await self.take_together([(copy, data)]))[0]

    async def take_together(self, events: Sequence[tuple[str, bytes]]) -> list[Any]:
        """The statuses to answer in one call. Raises `Refused` for all of them."""
        deliveries = [self._receive(copy, data) for copy, data in events]
        if self._rng.random() < _RAISE:
            self._answer(deliveries, ["RAISED"] * len(deliveries))
            raise Refused
        if self._rng.random() < _SLOW:
            await asyncio.sleep(self._rng.uniform(0.05, 0.6))
        names = ["RETRY" if self._rng.random() < _RETRY else "SUCCESS" for _ in deliveries]
        self._answer(deliveries, names)
        return [Reply.TopicEventResponseStatus.Value(name) for name in names]

    def _receive(self, copy: str, data: bytes) -> str:
        self._deliveries += 1
        delivery = f"{self._name}.{self._deliveries}"
        self._recorder.write("received", delivery=delivery, copy=copy, **json.loads(data))
        return delivery

    def _answer(self, deliveries: Sequence[str], names: Sequence[str]) -> None:
        for delivery, name in zip(deliveries, names, strict=True):
            self._recorder.write("answered", delivery=delivery, answer=name)


@final
class Subscriber:
    """`settings`: name, records, style, pubsub, topic, seed; the `port` to listen on, or the node's `address`
    for a stream.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._inbox = Inbox(settings)

    async def run(self) -> None:
        if self._settings["style"] == "stream":
            await self._stream()
        else:
            await self._serve()

    async def _serve(self) -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        services: Any = appcallback_pb2_grpc  # generated, without types
        services.add_AppCallbackServicer_to_server(_Callback(self._settings, self._inbox), server)
        services.add_AppCallbackAlphaServicer_to_server(_Alpha(self._inbox), server)
        server.add_insecure_port(f"127.0.0.1:{self._settings['port']}")
        await server.start()
        self._inbox.note("listening")
        await server.wait_for_termination()

    async def _stream(self) -> None:
        """One stream after another, for as long as we live."""
        async with grpc.aio.insecure_channel(self._settings["address"], options=RECONNECT) as channel:
            stub = dapr_pb2_grpc.DaprStub(channel)  # type: ignore[no-untyped-call]
            while True:
                call = stub.SubscribeTopicEventsAlpha1()
                try:
                    await self._hold(call)
                except (grpc.aio.AioRpcError, Refused, asyncio.InvalidStateError):
                    pass
                finally:
                    call.cancel()
                await asyncio.sleep(0.05)

    async def _hold(self, call: Any) -> None:
        initial = pubsub_pb2.SubscribeTopicEventsRequestInitialAlpha1(
            pubsub_name=self._settings["pubsub"], topic=self._settings["topic"]
        )
        await call.write(pubsub_pb2.SubscribeTopicEventsRequestAlpha1(initial_request=initial))
        sending = asyncio.Lock()
        try:
            async with asyncio.TaskGroup() as group:
                while (response := await call.read()) is not grpc.aio.EOF:
                    if response.HasField("event_message"):
                        group.create_task(self._answer(call, response.event_message, sending))
                    else:
                        self._inbox.note("listening")
                raise Refused  # the stream has ended: those at work have nobody to answer
        except* (grpc.aio.AioRpcError, Refused, asyncio.InvalidStateError):
            pass

    async def _answer(self, call: Any, event: Any, sending: asyncio.Lock) -> None:
        status = Reply(status=await self._inbox.take(event.id, event.data))
        processed = pubsub_pb2.SubscribeTopicEventsRequestProcessedAlpha1(id=event.id, status=status)
        async with sending:
            await call.write(pubsub_pb2.SubscribeTopicEventsRequestAlpha1(event_processed=processed))


@final
class _Callback(appcallback_pb2_grpc.AppCallbackServicer):
    def __init__(self, settings: dict[str, Any], inbox: Inbox) -> None:
        self._settings = settings
        self._inbox = inbox

    async def ListTopicSubscriptions(self, request: Any, context: Any) -> Any:
        topic = appcallback_pb2.TopicSubscription(
            pubsub_name=self._settings["pubsub"], topic=self._settings["topic"]
        )
        if self._settings["style"] == "bulk":
            topic.bulk_subscribe.enabled = True
            topic.bulk_subscribe.max_messages_count = _BULK_MOST
            topic.bulk_subscribe.max_await_duration_ms = _BULK_AWAIT_MS
        return appcallback_pb2.ListTopicSubscriptionsResponse(subscriptions=[topic])

    async def ListInputBindings(self, request: Any, context: Any) -> Any:
        return appcallback_pb2.ListInputBindingsResponse()

    async def OnTopicEvent(self, request: Any, context: Any) -> Any:
        try:
            return Reply(status=await self._inbox.take(request.id, request.data))
        except Refused:
            await context.abort(grpc.StatusCode.INTERNAL, "the application raises, as it should")


@final
class _Alpha(appcallback_pb2_grpc.AppCallbackAlphaServicer):
    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def OnBulkTopicEventAlpha1(self, request: Any, context: Any) -> Any:
        answer = appcallback_pb2.TopicEventBulkResponse()
        try:
            events = [(entry.cloud_event.id, entry.cloud_event.data) for entry in request.entries]
            statuses = await self._inbox.take_together(events)
        except Refused:
            await context.abort(grpc.StatusCode.INTERNAL, "the application raises, as it should")
        for entry, status in zip(request.entries, statuses, strict=True):
            answer.statuses.add(entry_id=entry.entry_id, status=status)
        return answer


if __name__ == "__main__":
    asyncio.run(Subscriber(json.loads(sys.argv[1])).run())
