"""From a broker's message to the application and back to an outcome.

The order of things: event, expiry, route, then attempts under the component's inbound policy. A message is
acknowledged when the application took it, dropped it, or when it is in the dead-letter topic; otherwise it
stays with the broker. Differences from the reference, all on the side of keeping messages: an open breaker
and an application that is unhealthy or not there pause the subscription instead of failing its messages; a
message that the application does not implement stays or goes to the dead-letter topic; nothing is
dead-lettered because the node shuts down.

The messages that `deliver_together` is given are one delivery of several (bulk), each with its own outcome.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import final

import trio

from meshnode.app import AppChannel
from meshnode.blocks.call import Call, LiveCalls
from meshnode.blocks.ids import fresh_id
from meshnode.blocks.keeping import pause_for_breaker, wait_for_app
from meshnode.blocks.pubsub.events import event_of
from meshnode.blocks.pubsub.publishing import Publishing
from meshnode.blocks.pubsub.subscription import Arrival, Kind, Receiver, Status, TopicSubscription
from meshnode.errors import CircuitOpen, MeshError
from meshnode.interfaces import Message, Outcome, PublishRequest
from meshnode.resiliency import Stopped, run, unwrap
from meshnode.transport import GRPCError

__all__ = ["Delivery", "NotProcessed"]

_log = logging.getLogger("meshnode.pubsub")


class NotProcessed(MeshError):
    """The application asked for the event again, or answered what is no answer."""


@final
class Delivery:
    """Delivers the messages of one subscription. `stop` is set when the subscription is to end."""

    def __init__(
        self,
        subscription: TopicSubscription,
        receiver: Receiver,
        *,
        app: AppChannel,
        publishing: Publishing,
        live: LiveCalls,
        wall: Callable[[], float],
        rng: random.Random,
        stop: trio.Event,
    ) -> None:
        self._subscription = subscription
        self._receiver = receiver
        self._app = app
        self._publishing = publishing
        self._live = live
        self._wall = wall
        self._stop = stop
        self._method = f"/pubsub/{subscription.name}"
        self._new_id = partial(fresh_id, rng)

    async def deliver(self, message: Message) -> Outcome:
        """One message's way."""
        return (await self.deliver_together([message]))[0]

    async def deliver_together(self, messages: Sequence[Message]) -> list[Outcome]:
        """The outcomes of messages that arrived together, in their order. Raises nothing: one message must
        not end its subscription.
        """
        call = self._live.begin(self._method, self._subscription.broker.name, None)
        try:
            return await self._deliver(messages, call)
        except Exception as raised:  # the boundary of a delivery: whatever it was, the messages are kept
            self._report(unwrap(raised), len(messages))
            return [Outcome.RETRY] * len(messages)
        finally:
            self._live.end(call)

    async def _deliver(self, messages: Sequence[Message], call: Call) -> list[Outcome]:
        outcomes: list[Outcome] = [Outcome.RETRY] * len(messages)
        wanted: dict[int, Arrival] = {}
        for at, message in enumerate(messages):
            arrival = await self._arrival(message, call)
            if isinstance(arrival, Outcome):
                outcomes[at] = arrival
            else:
                wanted[at] = arrival
        for group in _by_path(wanted).values():
            for at, outcome in (await self._hand_over(group, call)).items():
                outcomes[at] = outcome
        return outcomes

    async def _arrival(self, message: Message, call: Call) -> Arrival | Outcome:
        """The event and its path, or what is to become of a message that has none."""
        subscription = self._subscription
        broker = subscription.broker
        topic = message.topic.removeprefix(broker.prefix) if broker.prefix else message.topic
        try:
            event = event_of(message, broker.name, topic, raw=subscription.raw, new_id=self._new_id)
        except ValueError as error:
            text = "error deserializing cloud event in pubsub %s and topic %s: %s"
            _log.error(text, broker.name, topic, error)
            return await self._give_up(message, call)
        if event.expired(self._wall()):
            text = "dropping expired pub/sub event %s as of %s"
            _log.warning(text, event.text("id"), event.text("expiration"))
            return await self._give_up(message, call, lost_without=True)
        try:
            path = subscription.routes.path_of(event)
        except ValueError as error:
            text = "error finding matching route for event %s in pubsub %s and topic %s: %s"
            _log.error(text, event.text("id"), broker.name, topic, error)
            return await self._give_up(message, call)
        if path is None:
            text = "no matching route for event %s in pubsub %s and topic %s; skipping"
            _log.debug(text, event.text("id"), broker.name, topic)
            return await self._give_up(message, call, lost_without=True)
        return Arrival(message, event, path, topic)

    async def _hand_over(self, group: dict[int, Arrival], call: Call) -> dict[int, Outcome]:
        """Attempts under the inbound policy until all are done with or the policy ends them."""
        left = dict(group)
        done: dict[int, Status] = {}
        outcomes: dict[int, Outcome] = {}
        tries = 0

        async def attempt() -> None:
            nonlocal tries
            tries += 1
            try:
                await self._attempt(left, done)
            except CircuitOpen:  # it did not get there
                tries -= 1
                raise

        broker = self._subscription.broker
        policy = broker.inbound
        view = None if policy.is_noop else call.watched(policy, policy.target)
        refusals = 0
        while left and await self._may_go():
            try:
                await run(policy, attempt, view=view, stop=self._stop)
            except Stopped:
                break
            except Exception as raised:
                error = unwrap(raised)
                if isinstance(error, CircuitOpen) and tries < policy.most_attempts:
                    await self._pause(error, refusals)
                    refusals += 1
                    continue
                self._report(error, len(left))
                for at, arrival in left.items():
                    outcomes[at] = await self._give_up(arrival.message, call)
                break
        for at, status in done.items():
            dropped = status is Status.DROP
            outcomes[at] = await self._drop(group[at], call) if dropped else Outcome.ACK
        return {at: outcomes.get(at, Outcome.RETRY) for at in group}

    async def _pause(self, refusal: CircuitOpen, refusals: int) -> None:
        """Attempts count across pauses: else one event could open the breaker, or end the application, for
        ever.
        """
        if not refusals:
            _log.info("events of %s wait: %s", self._subscription.name, refusal)
        await pause_for_breaker(self._subscription.broker.inbound, self._stop, refusals)

    async def _attempt(self, left: dict[int, Arrival], done: dict[int, Status]) -> None:
        """One call into the application; what it is done with goes from `left` to `done`. Raises where
        something stays.
        """
        timeout = self._subscription.broker.inbound.timeout
        at_once = list(left.items())
        statuses = await self._receiver.receive(
            self._subscription, [arrival for _, arrival in at_once], timeout
        )
        for (at, _), status in zip(at_once, statuses, strict=True):
            if status in (Status.SUCCESS, Status.DROP):
                done[at] = status
                del left[at]
        if left:
            ids = ", ".join(arrival.event.text("id") for arrival in left.values())
            raise NotProcessed(f"RETRY status returned from app while processing pub/sub event {ids}")

    async def _drop(self, arrival: Arrival, call: Call) -> Outcome:
        event_id = arrival.event.text("id")
        _log.warning("DROP status returned from app while processing pub/sub event %s", event_id)
        return await self._give_up(arrival.message, call, lost_without=True)

    async def _give_up(self, message: Message, call: Call, *, lost_without: bool = False) -> Outcome:
        """To the dead-letter topic. Without one the message stays, unless it was meant to be dropped."""
        target = self._subscription.dead_letter_topic
        if not target:
            return Outcome.ACK if lost_without else Outcome.RETRY
        if self._stop.is_set() and not lost_without:
            return Outcome.RETRY
        request = PublishRequest(target, message.data, message.content_type, metadata=message.metadata)
        try:
            # An application that names its dead-letter topic may not publish further in this way than in any.
            self._publishing.check_scope(self._subscription.broker, target)
            await self._publishing.send(self._subscription.broker, request, call, stop=self._stop)
        except Exception as raised:  # the boundary around a component
            error = unwrap(raised)
            text = "error sending message to dead letter, origin topic: %s dead letter topic %s err: %s"
            known = isinstance(error, MeshError)
            _log.error(text, message.topic, target, error, exc_info=None if known else error)
            return Outcome.RETRY
        return Outcome.ACK

    async def _may_go(self) -> bool:
        """Whether to go on; waits while the application reports unhealthy. A stream is its own channel."""
        if self._subscription.kind is Kind.STREAMING:
            return not self._stop.is_set()
        return await wait_for_app(self._app, self._stop)

    def _report(self, error: Exception, count: int) -> None:
        subscription = self._subscription
        where = f"pubsub {subscription.broker.name} and topic {subscription.topic}"
        reason = error.message if isinstance(error, GRPCError) else str(error)
        text = "error returned from app while processing %s of %s: %s"
        what = "a pub/sub event" if count == 1 else f"{count} pub/sub events"
        expected = isinstance(error, MeshError | GRPCError)
        _log.warning(text, what, where, reason, exc_info=None if expected else error)


def _by_path(wanted: dict[int, Arrival]) -> dict[str, dict[int, Arrival]]:
    paths: dict[str, dict[int, Arrival]] = {}
    for at, arrival in wanted.items():
        paths.setdefault(arrival.path, {})[at] = arrival
    return paths
