"""A node's subscriptions: what its resources declare, what its application asks for at start, and the
streams it opens. Each runs on its own; one that fails is tried again and troubles no other.

`renew` is for resources that have changed: what is wanted as before goes on; what is not ends, what it has
under way first; and a subscription whose broker was opened anew moves over to it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import final

import trio

from meshnode.app import AppChannel
from meshnode.blocks.call import Call, LiveCalls
from meshnode.blocks.fleet import Fleet, pass_on
from meshnode.blocks.keeping import ask_app, first_of
from meshnode.blocks.pubsub.brokers import Brokers
from meshnode.blocks.pubsub.callback import CallbackReceiver
from meshnode.blocks.pubsub.delivery import Delivery
from meshnode.blocks.pubsub.keeping import keep_subscribed
from meshnode.blocks.pubsub.publishing import Publishing
from meshnode.blocks.pubsub.streaming import EventStream, StreamReceiver, initial_request
from meshnode.blocks.pubsub.subscription import Receiver, TopicSubscription
from meshnode.blocks.pubsub.wanted import Wanted, without_doubles
from meshnode.config.subscription import Subscription
from meshnode.errors import MeshError, Status
from meshnode.resiliency import Policies
from meshnode.transport import GRPCError
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty

__all__ = ["Subscriptions"]

_log = logging.getLogger("meshnode.pubsub")


@final
class _Held:
    """One subscription that is being held until `stop`."""

    def __init__(self, subscription: TopicSubscription) -> None:
        self.subscription = subscription
        self.stop = trio.Event()


@final
class _Streamed:
    """The same over a stream. Cancelling `scope` gives back what is under way."""

    def __init__(self, subscription: TopicSubscription) -> None:
        self.subscription = subscription
        self.stop = trio.Event()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()


@final
class Subscriptions:
    """`run` holds the declared and programmatic ones; `stream` is the streaming API. `stop` ends them all."""

    def __init__(
        self,
        brokers: Brokers,
        *,
        app: AppChannel,
        policies: Policies,
        publishing: Publishing,
        live: LiveCalls,
        wall: Callable[[], float],
        rng: random.Random,
        stop: trio.Event,
    ) -> None:
        self._brokers = brokers
        self._app = app
        self._policies = policies
        self._publishing = publishing
        self._live = live
        self._wall = wall
        self._rng = rng
        self._stop = stop
        self._wanted = Wanted(brokers)
        self._callback = CallbackReceiver(app, rng)
        self._declared: Sequence[Subscription] = ()
        self._asked: Sequence[runtime.TopicSubscription] = ()
        self._fleet = Fleet(stop, self._hold)
        self._held: dict[tuple[str, str], _Held] = {}
        self._active: list[TopicSubscription] = []
        self._streams: dict[_Streamed, None] = {}

    @property
    def active(self) -> Sequence[TopicSubscription]:
        """What is subscribed to now."""
        return (*self._active, *(one.subscription for one in self._streams))

    async def run(self, declared: Sequence[Subscription]) -> None:
        """Subscribe to what is declared and what the application asks for; return when all have ended,
        which is after `stop`.
        """
        self._want(declared)
        async with trio.open_nursery() as nursery:
            # What is declared goes before what the application asks for, as in Dapr, and waits for nothing.
            nursery.start_soon(self._fleet.run)
            self._asked = await self._programmatic()
            if self._asked:
                self._want(self._declared)

    def renew(self, declared: Sequence[Subscription]) -> None:
        """Go by these declared ones, and by the brokers as they are now."""
        self._want(declared)
        for one in self._streams:
            broker = one.subscription.broker
            if self._brokers.get(broker.name) is not broker:
                one.stop.set()

    async def settled(self, patience: float) -> None:
        """Return when nothing is under way any more that `renew` has ended; what takes longer than `patience`
        seconds is cancelled, which gives it back to its broker.
        """
        moving = [one for one in self._streams if one.stop.is_set()]
        began = trio.current_time()
        await self._fleet.settled(patience)
        with trio.move_on_at(began + patience):
            for one in moving:
                await one.ended.wait()
        for one in moving:
            one.scope.cancel()
            await one.ended.wait()

    async def stream(self, stream: EventStream, call: Call) -> None:
        """One streaming subscription, from its initial request to its end."""
        initial = await self._initial(stream)
        subscription = self._wanted.streamed(initial)
        call.target = subscription.name
        receiver = StreamReceiver(stream)
        async with trio.open_nursery() as nursery:

            async def hold(*, task_status: trio.TaskStatus[None]) -> None:
                await self._hold_stream(initial, subscription, receiver, task_status=task_status)
                nursery.cancel_scope.cancel()

            await nursery.start(hold)
            if not self._stop.is_set():
                await receiver.confirm()
                await receiver.listen()
                nursery.cancel_scope.cancel()
        self._check_stop()

    async def _hold_stream(
        self,
        initial: runtime.SubscribeTopicEventsRequestInitialAlpha1,
        subscription: TopicSubscription,
        receiver: StreamReceiver,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Hold it until the node leaves, on one broker after the other where the component is opened anew.
        Raises where it fails at first, or where the component has gone.
        """
        status: trio.TaskStatus[None] = task_status
        patient = False
        while True:
            held = _Streamed(subscription)
            delivery = self._delivery(subscription, receiver, held.stop)
            with self._streaming(held), held.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pass_on, self._stop, held.stop)
                    await keep_subscribed(
                        subscription, delivery, held.stop, task_status=status, patient=patient
                    )
                    nursery.cancel_scope.cancel()
            if self._stop.is_set():
                return
            subscription = self._wanted.streamed(initial)
            status, patient = trio.TASK_STATUS_IGNORED, True

    async def _initial(self, stream: EventStream) -> runtime.SubscribeTopicEventsRequestInitialAlpha1:
        """What the stream asks for, as soon as it does."""
        found: list[runtime.SubscribeTopicEventsRequestInitialAlpha1] = []

        async def receive() -> None:
            found.append(await initial_request(stream))

        await first_of(receive, self._stop.wait)
        self._check_stop()
        return found[0]

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise MeshError("the node is shutting down", status=Status.UNAVAILABLE)

    def _want(self, declared: Sequence[Subscription]) -> None:
        """One that is wanted as before stays the very object that is being held."""
        self._declared = declared
        wanted = without_doubles([*self._wanted.declared(declared), *self._wanted.asked_for(self._asked)])
        before, self._held = self._held, {}
        for one in wanted:
            key = (one.broker.name, one.topic)
            held = before.get(key)
            same = held is not None and held.subscription == one
            self._held[key] = held if held is not None and same else _Held(one)
        self._fleet.want(self._held)

    async def _hold(self, held: _Held) -> None:
        subscription, stop = held.subscription, held.stop
        where = (subscription.topic, subscription.broker.name)
        with self._listed(subscription):
            async with trio.open_nursery() as nursery:
                delivery = self._delivery(subscription, self._callback, stop)
                await nursery.start(keep_subscribed, subscription, delivery, stop)
                _log.info("app is subscribed to topic %s of pubsub %s", *where)
        if not self._stop.is_set():
            _log.info("the subscription to topic %s of pubsub %s as it was has ended", *where)

    def _delivery(self, subscription: TopicSubscription, receiver: Receiver, stop: trio.Event) -> Delivery:
        return Delivery(
            subscription,
            receiver,
            app=self._app,
            publishing=self._publishing,
            live=self._live,
            wall=self._wall,
            rng=self._rng,
            stop=stop,
        )

    async def _programmatic(self) -> Sequence[runtime.TopicSubscription]:
        if not self._app.configured:
            return ()
        policy = self._policies.built_in("DaprBuiltInInitializationRetries")
        answer = await ask_app("topic list", self._app, self._list_topics, policy, self._stop)
        return () if answer is None else answer.subscriptions

    async def _list_topics(self) -> runtime.ListTopicSubscriptionsResponse:
        try:
            return await runtime.AppCallbackStub(self._app.channel).list_topic_subscriptions(
                Empty(), metadata=self._app.own_metadata
            )
        except GRPCError as error:
            if error.status is not Status.UNIMPLEMENTED:
                raise
            _log.info("pubsub subscriptions: gRPC app does not implement ListTopicSubscriptions")
            return runtime.ListTopicSubscriptionsResponse()

    @contextmanager
    def _listed(self, subscription: TopicSubscription) -> Iterator[None]:
        self._active.append(subscription)
        try:
            yield
        finally:
            self._active.remove(subscription)

    @contextmanager
    def _streaming(self, held: _Streamed) -> Iterator[None]:
        self._streams[held] = None
        try:
            yield
        finally:
            del self._streams[held]
            held.ended.set()
