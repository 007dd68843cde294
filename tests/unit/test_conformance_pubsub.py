"""The conformance suite of brokers itself: a sound broker passes, and each kind of broken broker is caught by
a check meant for it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import attrs
import pytest
import trio
from meshnode_pubsub_in_memory import Broker, Options

from meshnode.errors import BulkPublishError, PubSubError
from meshnode.interfaces import DriverContext, Outcome, PublishRequest, PubSubFeature
from meshnode.testing.conformance import pubsub

PROMISES = pubsub.Promises(
    features=frozenset(
        {PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB, PubSubFeature.SUBSCRIBE_WILDCARDS}
    ),
    keeps_order=True,
    order_key=True,
    keeps_unclaimed=True,
    keeps_content_type=True,
    keeps_metadata=True,
    wildcard=pubsub.Wildcard("{}*", ("{}-a", "{}-b"), ("x{}", "y{}")),
    refused=lambda topic: PublishRequest(topic, b"", metadata={"refuse": "me"}),
)


class Wrapper:
    """A sound broker, for subclasses to break. Wildcards end in `*` and only that publish sees them. `kept`
    has what came before a topic's first subscription, `claimed` the topics that had one.
    """

    patterns: set[str]
    kept: dict[str, list[PublishRequest]]
    claimed: set[str]

    def __init__(self, inner, shared):
        self.inner = inner
        self.patterns = shared.setdefault("patterns", set())
        self.kept = shared.setdefault("kept", {})
        self.claimed = shared.setdefault("claimed", set())
        self.shared = shared

    @property
    def features(self):
        return PROMISES.features

    async def publish(self, request):
        if "refuse" in request.metadata:
            raise PubSubError("refused")
        if request.topic not in self.claimed:
            self.kept.setdefault(request.topic, []).append(request)
        await self.inner.publish(request)
        for pattern in self.patterns:
            if request.topic.startswith(pattern[:-1]):
                kept = attrs.evolve(request, topic=pattern, metadata={**request.metadata, "t": request.topic})
                await self.inner.publish(kept)

    async def bulk_publish(self, requests):
        failures = {}
        for position, request in enumerate(requests):
            try:
                await self.publish(request)
            except PubSubError as error:
                failures[position] = error
        if failures:
            raise BulkPublishError(failures)

    async def subscribe(self, request, deliver, stop, *, task_status):
        if request.topic.endswith("*"):
            self.patterns.add(request.topic)

        def named(message):
            return deliver(attrs.evolve(message, topic=message.metadata.get("t", message.topic)))

        self.claimed.add(request.topic)
        if kept := self.kept.pop(request.topic, ()):
            await self.make_group(request)
            for one in kept:
                await self.inner.publish(one)
        await self.inner.subscribe(request, partial(self.hand, named), stop, task_status=task_status)

    async def make_group(self, request):
        stop = trio.Event()
        stop.set()
        await self.inner.subscribe(request, self.hand, stop, task_status=trio.TASK_STATUS_IGNORED)

    async def hand(self, deliver, message):
        return await deliver(message)

    async def ping(self):
        await self.inner.ping()


class LosesEmptyMessages(Wrapper):
    async def publish(self, request):
        if request.data:
            await super().publish(request)


class CutsLongMessages(Wrapper):
    async def hand(self, deliver, message):
        return await deliver(attrs.evolve(message, data=message.data[:65536]))


class ForgetsContentTypes(Wrapper):
    async def hand(self, deliver, message):
        return await deliver(attrs.evolve(message, content_type="application/json"))


class ForgetsMetadata(Wrapper):
    async def hand(self, deliver, message):
        return await deliver(attrs.evolve(message, metadata={}))


class NamesNoTopic(Wrapper):
    async def hand(self, deliver, message):
        return await deliver(attrs.evolve(message, topic=""))


class DoesNotCount(Wrapper):
    async def hand(self, deliver, message):
        return await deliver(attrs.evolve(message, position=0))


class DeliversTwice(Wrapper):
    async def hand(self, deliver, message):
        await deliver(message)
        return await deliver(message)


class StartsTooSoon(Wrapper):
    """Says that it is subscribed, and subscribes a moment later: what comes in between is lost."""

    async def subscribe(self, request, deliver, stop, *, task_status):
        self.claimed.add(request.topic)
        task_status.started()
        await trio.sleep(0.001)
        await super().subscribe(request, deliver, stop, task_status=trio.TASK_STATUS_IGNORED)


class MixesTopics(Wrapper):
    """One topic for all whose names begin alike."""

    async def publish(self, request):
        await super().publish(attrs.evolve(request, topic=request.topic[:-1]))

    async def subscribe(self, request, *args, **kwargs):
        shorter = attrs.evolve(request, topic=request.topic[:-1])
        await super().subscribe(shorter, *args, **kwargs)


class StopsAtTheFirstFailure(Wrapper):
    async def bulk_publish(self, requests):
        for position, request in enumerate(requests):
            try:
                await self.publish(request)
            except PubSubError as error:
                raise BulkPublishError({position: error}) from error


class DropsWhenBusy(Wrapper):
    """Two publishers at once: the second is told that all is well."""

    busy = False

    async def publish(self, request):
        if self.busy:
            return
        self.busy = True
        try:
            await trio.sleep(0.001)
            await super().publish(request)
        finally:
            self.busy = False


class DiesOfCancellation(Wrapper):
    stuck = False

    async def publish(self, request):
        if self.stuck:
            await trio.sleep_forever()
        done = False
        try:
            await trio.sleep(0.001)
            await super().publish(request)
            done = True
        finally:
            self.stuck |= not done


class KeepsForEver(Wrapper):
    async def publish(self, request):
        await super().publish(attrs.evolve(request, ttl=None))


class MatchesEverything(Wrapper):
    async def subscribe(self, request, *args, **kwargs):
        if request.topic.endswith("*"):
            request = attrs.evolve(request, topic="*")
        await super().subscribe(request, *args, **kwargs)


class OneGroup(Wrapper):
    """All consumers share; see `opener`."""


class ForgetsToAcknowledge(Wrapper):
    async def subscribe(self, request, deliver, stop, *, task_status):
        await super().subscribe(request, deliver, stop, task_status=task_status)
        for message in self.shared.pop("delivered", []):
            await self.inner.publish(PublishRequest(request.topic, message.data))

    async def hand(self, deliver, message):
        self.shared.setdefault("delivered", []).append(message)
        return await super().hand(deliver, message)


class AcknowledgesWhatFailed(Wrapper):
    """What Dapr's Redis component does."""

    async def hand(self, deliver, message):
        await deliver(message)
        return Outcome.ACK


class AcknowledgesFirst(Wrapper):
    """What is cancelled under way is lost."""

    async def hand(self, deliver, message):
        try:
            return await deliver(message)
        except BaseException:
            self.shared.setdefault("lost", set()).add(message.data)
            raise

    async def subscribe(self, request, deliver, stop, *, task_status):
        async def unless_lost(message):
            if message.data in self.shared.get("lost", ()):
                return Outcome.ACK
            return await deliver(message)

        await super().subscribe(request, unless_lost, stop, task_status=task_status)


class TriesAgainAtOnceAndOnItsOwn(Wrapper):
    """A failing message holds up everything behind it."""

    def __init__(self, inner, shared):
        super().__init__(inner, shared)
        self.lock = trio.Lock()

    async def hand(self, deliver, message):
        async with self.lock:
            for _ in range(100):
                if await deliver(message) is Outcome.ACK:
                    break
                await trio.sleep(0.01)
        return Outcome.ACK


class StopsHard(Wrapper):
    """A stop cancels what is under way."""

    async def subscribe(self, request, deliver, stop, *, task_status):
        async with trio.open_nursery() as nursery:

            async def watch():
                await stop.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await super().subscribe(request, deliver, stop, task_status=task_status)
            nursery.cancel_scope.cancel()


class DoesNotStop(Wrapper):
    async def subscribe(self, request, deliver, stop, *, task_status):
        await super().subscribe(request, deliver, trio.Event(), task_status=task_status)


class TakesMoreThanItMay(Wrapper):
    async def subscribe(self, request, deliver, stop, *, task_status):
        more = attrs.evolve(request, max_in_flight=(request.max_in_flight or 10) + 1)
        await super().subscribe(more, deliver, stop, task_status=task_status)


class TakesOneAtATime(Wrapper):
    async def subscribe(self, request, deliver, stop, *, task_status):
        one = attrs.evolve(request, max_in_flight=1)
        await super().subscribe(one, deliver, stop, task_status=task_status)


class SwallowsCancellation(Wrapper):
    async def subscribe(self, request, deliver, stop, *, task_status):
        with trio.CancelScope():
            try:
                await super().subscribe(request, deliver, stop, task_status=task_status)
            except trio.Cancelled:
                stop.set()


class LeavesAPhantom(Wrapper):
    """The consumer of a cancelled subscription stays, and swallows a message."""

    async def subscribe(self, request, deliver, stop, *, task_status):
        ended = False
        try:
            await super().subscribe(request, deliver, stop, task_status=task_status)
            ended = True
        finally:
            if not ended:
                self.shared["phantoms"] = self.shared.get("phantoms", 0) + 1

    async def publish(self, request):
        if self.shared.get("phantoms"):
            self.shared["phantoms"] -= 1
            return
        await super().publish(request)


class ForgetsGroups(Wrapper):
    """A group ends with its last consumer."""

    readers = 0

    async def subscribe(self, request, deliver, stop, *, task_status):
        self.shared["readers"] = self.shared.get("readers", 0) + 1
        try:
            await super().subscribe(request, deliver, stop, task_status=task_status)
        finally:
            self.shared["readers"] -= 1

    async def publish(self, request):
        if self.shared.get("readers"):
            await super().publish(request)


class KeepsOnlyForGroups(Wrapper):
    """What comes before the first subscription is nobody's."""

    async def publish(self, request):
        if request.topic in self.claimed:
            await super().publish(request)


class IgnoresKeys(Wrapper):
    async def publish(self, request):
        await super().publish(attrs.evolve(request, metadata={}))


class Reverses(Wrapper):
    """Bulk publications come out last first."""

    async def bulk_publish(self, requests):
        await super().bulk_publish(list(reversed(requests)))


BROKEN = {
    LosesEmptyMessages: "data_arrives_byte_for_byte",
    CutsLongMessages: "data_arrives_byte_for_byte",
    ForgetsContentTypes: "content_type_arrives",
    ForgetsMetadata: "metadata_arrives",
    NamesNoTopic: "a_message_is_delivered_once",
    DoesNotCount: "position_rises",
    DeliversTwice: "a_message_is_delivered_once",
    StartsTooSoon: "a_message_is_delivered_once",
    MixesTopics: "topics_do_not_mix",
    StopsAtTheFirstFailure: "bulk_publish_names_what_failed",
    DropsWhenBusy: "concurrent_publishers_lose_nothing",
    DiesOfCancellation: "cancelled_publishers_harm_nobody",
    KeepsForEver: "expired_messages_are_not_delivered",
    MatchesEverything: "wildcards_match",
    OneGroup: "each_group_receives_every_message",
    ForgetsToAcknowledge: "acknowledged_is_final",
    AcknowledgesWhatFailed: "retry_comes_again",
    AcknowledgesFirst: "cancelled_delivery_goes_to_another_consumer",
    TriesAgainAtOnceAndOnItsOwn: "retry_holds_up_nobody",
    StopsHard: "stop_finishes_what_is_under_way",
    DoesNotStop: "stop_ends_an_idle_subscription",
    TakesMoreThanItMay: "the_limit_is_kept",
    TakesOneAtATime: "the_limit_is_kept",
    SwallowsCancellation: "cancelled_subscriptions_leave_no_consumer_behind",
    LeavesAPhantom: "cancelled_subscriptions_leave_no_consumer_behind",
    ForgetsGroups: "a_group_keeps_what_comes_while_nobody_reads",
    KeepsOnlyForGroups: "the_first_group_receives_what_came_before",
    IgnoresKeys: "each_key_keeps_its_order_across_consumers",
    Reverses: "one_at_a_time_keeps_the_order",
}


def setup_of(kind):
    driver, shared, now = Broker().driver, {}, [1_800_000_000.0]
    context = DriverContext("pubsub", "app", wall=lambda: now[0])

    async def pass_time(seconds):
        now[0] += seconds

    @asynccontextmanager
    async def open_group(group):
        name = "everybody" if kind is OneGroup else group
        options = Options(consumer_id=name, redeliver_interval=timedelta(milliseconds=20))
        async with driver.open(options, context) as inner:
            yield kind(inner, shared)

    return pubsub.Setup(open_group, PROMISES, pass_time=pass_time)


async def test_a_sound_broker_passes(autojump_clock):
    names = await pubsub.run_pubsub_conformance(setup_of(Wrapper))
    assert names == [check.name for check in pubsub.CHECKS]


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_broken_broker_is_caught(kind, autojump_clock):
    (check,) = [check for check in pubsub.CHECKS if check.name == BROKEN[kind]]
    with pytest.raises(pubsub.ConformanceError):
        await check.run(setup_of(kind))


async def test_what_is_not_promised_is_not_checked(autojump_clock):
    """The least a broker can be: checks that need more say so."""
    least = pubsub.Promises(
        groups=False, competing=False, durable=False, redelivers=False, side_by_side=False
    )
    names = {check.name for check in pubsub.checks_for(least)}
    assert "a_message_is_delivered_once" in names
    assert not names & {
        "each_group_receives_every_message",
        "retry_comes_again",
        "consumers_of_a_group_share",
        "a_group_keeps_what_comes_while_nobody_reads",
        "the_first_group_receives_what_came_before",
        "one_at_a_time_keeps_the_order",
        "wildcards_match",
    }
    (check,) = [check for check in pubsub.CHECKS if check.name == "retry_comes_again"]
    assert not await check.run(attrs.evolve(setup_of(Wrapper), promises=least))


async def test_features_are_held_to_the_promise(autojump_clock):
    setup = attrs.evolve(setup_of(Wrapper), promises=pubsub.Promises())
    with pytest.raises(pubsub.ConformanceError, match="features"):
        await pubsub.CHECKS[0].run(setup)


async def test_errors_of_the_driver_come_out_bare(autojump_clock):
    class Refuses(Wrapper):
        async def subscribe(self, request, deliver, stop, *, task_status):
            task_status.started()
            raise PubSubError("no")

    (check,) = [check for check in pubsub.CHECKS if check.name == "stop_ends_an_idle_subscription"]
    with pytest.raises(PubSubError, match="no"):
        await check.run(setup_of(Refuses))


def test_a_check_prints_as_its_name():
    assert str(pubsub.CHECKS[0]) == pubsub.CHECKS[0].name == "fulfils_the_protocol"
    assert len({check.name for check in pubsub.CHECKS}) == len(pubsub.CHECKS)
