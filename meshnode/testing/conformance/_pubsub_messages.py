"""Checks of what is published and what arrives."""

from __future__ import annotations

import trio

from meshnode.errors import BulkPublishError
from meshnode.interfaces import Message, Outcome, PubSub, PubSubFeature
from meshnode.testing.conformance._check import ConformanceError, expect, within
from meshnode.testing.conformance._pubsub_check import Probe, collect

__all__ = ["CHECKS"]

_BODIES = {
    "json": b'{"b": 1,  "a":[1.0, null]}',
    "empty": b"",
    "zero": b"\0",
    "all bytes": bytes(range(256)) * 3,
    "not UTF-8": b"\xff\xfe\xfd",
    "text": "žluťoučký 🐎".encode(),
    "line ends": b"a\r\nb\r\n$3\r\n",
    "a megabyte": bytes(range(250)) * 4000,
}


async def fulfils_the_protocol(probe: Probe) -> None:
    async with probe.open() as broker:
        expect(isinstance(broker, PubSub), "the object lacks a method of PubSub")
        promised = probe.setup.promises.features
        expect(isinstance(broker.features, frozenset), "features must be a frozenset")
        expect(broker.features == promised, f"features are {broker.features}, promised were {promised}")


async def ping_answers(probe: Probe) -> None:
    async with probe.open() as broker:
        with within(probe.setup.patience, "ping did not return"):
            await broker.ping()


async def a_message_is_delivered_once(probe: Probe) -> None:
    """Published the moment after `started`, it arrives, and arrives once."""
    async with probe.open() as broker, probe.reading(broker) as reader:
        await probe.publish(broker, b"hello")
        await reader.has(1)
        await probe.nothing_more_comes()
        reader.expect_once([b"hello"], "one message was published")
        expect(reader.messages[0].topic == probe.topic, "a message names the topic it was published to")


async def each_group_receives_every_message(probe: Probe) -> None:
    bodies = [b"%d" % number for number in range(10)]
    async with (
        probe.open("one") as one,
        probe.open("two") as two,
        probe.reading(one) as first,
        probe.reading(two) as second,
    ):
        await probe.publish(one, *bodies)
        await first.has(10)
        await second.has(10)
        await probe.nothing_more_comes()
        first.expect_once(bodies, "the group of the publisher")
        second.expect_once(bodies, "the other group")


async def data_arrives_byte_for_byte(probe: Probe) -> None:
    async with probe.open() as broker, probe.reading(broker, limit=1) as reader:
        for number, (name, data) in enumerate(_BODIES.items()):
            await probe.publish(broker, data, content_type="application/octet-stream")
            await reader.has(number + 1)
            expect(reader.received[number] == data, f"data came back changed: {name}")
            expect(type(reader.received[number]) is bytes, "data is bytes")


async def position_rises(probe: Probe) -> None:
    async with probe.open() as broker, probe.reading(broker, limit=1) as reader:
        await probe.publish(broker, *[b"%d" % number for number in range(10)])
        await reader.has_finished(10)
        positions = [message.position for message in reader.messages]
        expect(positions == sorted(set(positions)), f"positions must rise: {positions}")


async def content_type_arrives(probe: Probe) -> None:
    async with probe.open() as broker, probe.reading(broker, limit=1) as reader:
        for number, kind in enumerate(("application/cloudevents+json", "text/plain; charset=utf-8", "")):
            await probe.publish(broker, b"1", content_type=kind)
            await reader.has(number + 1)
            came = reader.messages[number].content_type
            expect(came == kind, f"content type {kind!r} came back as {came!r}")


async def metadata_arrives(probe: Probe) -> None:
    given = {"colour": "blue", "empty": "", "unicode": "číslo", "with-dash": "a=b;c"}
    async with probe.open() as broker, probe.reading(broker) as reader:
        await probe.publish(broker, b"1", metadata=given)
        await reader.has(1)
        came = {name: reader.messages[0].metadata.get(name) for name in given}
        expect(came == given, f"metadata {given} came back as {came}")


async def topics_do_not_mix(probe: Probe) -> None:
    """Subscriptions to several topics of one component, at once."""
    names = [f"{probe.topic}-{name}" for name in ("a", "b", "ab")]
    for name in names:
        await probe.prepare(name)
    async with (
        probe.open() as broker,
        probe.reading(broker, topic=names[0]) as first,
        probe.reading(broker, topic=names[1]) as second,
        probe.reading(broker, topic=names[2]) as third,
    ):
        for number in range(5):
            for name in names:
                await probe.publish(broker, b"%s %d" % (name.encode(), number), topic=name)
        for name, reader in zip(names, (first, second, third), strict=True):
            await reader.has(5)
            wanted = [b"%s %d" % (name.encode(), number) for number in range(5)]
            reader.expect_once(wanted, f"topic {name}")


async def one_subscription_ends_and_the_others_go_on(probe: Probe) -> None:
    other = f"{probe.topic}-other"
    await probe.prepare(other)
    async with probe.open() as broker, probe.reading(broker) as stays:
        async with probe.reading(broker, topic=other) as goes:
            await probe.publish(broker, b"1", topic=other)
            await goes.has_finished(1)
        await probe.publish(broker, b"1")
        await stays.has_finished(1)
        async with probe.reading(broker, topic=other) as cancelled:
            await cancelled.cancel()
        await probe.publish(broker, b"2")
        await stays.has_finished(2)
        stays.expect_once([b"1", b"2"], "the topic that stayed subscribed")


async def nobody_need_be_subscribed(probe: Probe) -> None:
    async with probe.open() as broker:
        await probe.publish(broker, b"to nobody")


async def bulk_publish_delivers_all(probe: Probe) -> None:
    bodies = [b"%d" % number for number in range(50)]
    async with probe.open() as broker, probe.reading(broker) as reader:
        with within(probe.setup.patience, "bulk_publish did not return"):
            await broker.bulk_publish([])
            await broker.bulk_publish([probe.request(data) for data in bodies])
        await reader.has(50)
        await probe.nothing_more_comes()
        reader.expect_once(bodies, "bulk publication")


async def bulk_publish_names_what_failed(probe: Probe) -> None:
    assert probe.setup.promises.refused is not None
    bad = probe.setup.promises.refused(probe.topic)
    async with probe.open() as broker, probe.reading(broker) as reader:
        try:
            await broker.bulk_publish([probe.request(b"1"), bad, probe.request(b"2"), bad])
        except BulkPublishError as error:
            expect(set(error.failures) == {1, 3}, f"failures are those at 1 and 3: {sorted(error.failures)}")
            bare = all(isinstance(one, Exception) for one in error.failures.values())
            expect(bare, "each failure is an exception")
        else:
            raise ConformanceError("a message that the broker must refuse was accepted")
        await reader.has_finished(2)
        await probe.nothing_more_comes()
        reader.expect_once([b"1", b"2"], "what was beside the refused messages")


async def concurrent_publishers_lose_nothing(probe: Probe) -> None:
    bodies = [b"%d:%d" % (who, turn) for who in range(20) for turn in range(5)]
    async with probe.open() as broker, probe.reading(broker) as reader:
        async with trio.open_nursery() as nursery:
            for who in range(20):
                mine = [data for data in bodies if data.startswith(b"%d:" % who)]
                nursery.start_soon(probe.publish, broker, *mine)
        await reader.has_finished(100)
        await probe.nothing_more_comes()
        reader.expect_once(bodies, "100 messages of 20 publishers")


async def cancelled_publishers_harm_nobody(probe: Probe) -> None:
    """Some of a crowd are cancelled, before they begin or in flight; the others' messages must arrive."""
    async with probe.open() as broker, probe.reading(broker) as reader:
        for turn in range(6):
            await _cancel_some(probe, broker, turn)
        due = {b"%d:%d" % (turn, number) for turn in range(6) for number in range(12) if number % 3}
        await reader.until(lambda: due <= set(reader.finished), "delivery beside cancelled publishers")
        await probe.publish(broker, b"after")
        await reader.until(lambda: b"after" in reader.finished, "delivery after cancelled publishers")


async def _cancel_some(probe: Probe, broker: PubSub, turn: int) -> None:
    scopes = [trio.CancelScope() for _ in range(12)]

    async def publisher(number: int) -> None:
        with scopes[number]:
            await broker.publish(probe.request(b"%d:%d" % (turn, number)))

    with within(probe.setup.patience, "publish did not return beside cancelled publishers"):
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(publisher, number)
            for _ in range(turn):
                await trio.lowlevel.checkpoint()
            for scope in scopes[::3]:
                scope.cancel()


async def expired_messages_are_not_delivered(probe: Probe) -> None:
    async with probe.open() as broker:
        async with probe.reading(broker):
            pass
        await probe.publish(broker, b"short-lived", ttl=1)
        await probe.publish(broker, b"long-lived", ttl=3600)
        await probe.publish(broker, b"immortal")
        await probe.setup.pass_time(2.1)
        async with probe.reading(broker) as reader:
            await reader.has(2)
            await probe.nothing_more_comes()
            reader.expect_once([b"long-lived", b"immortal"], "after the time to live of one of three")


async def time_to_live_leaves_prompt_delivery_alone(probe: Probe) -> None:
    async with probe.open() as broker, probe.reading(broker) as reader:
        await probe.publish(broker, b"1", ttl=60)
        await reader.has_finished(1)


async def wildcards_match(probe: Probe) -> None:
    wildcard = probe.setup.promises.wildcard
    matching = [name.format(probe.name) for name in wildcard.matching]
    others = [name.format(probe.name) for name in wildcard.others]
    for name in (*matching, *others):
        await probe.prepare(name)
    came: list[Message] = []

    async def note(message: Message) -> Outcome:
        came.append(message)
        return Outcome.ACK

    pattern = wildcard.pattern.format(probe.name)
    async with probe.open() as broker, probe.reading(broker, note, topic=pattern) as reader:
        for name in (*others, *matching):
            await probe.publish(broker, name.encode(), topic=name)
        await reader.has_finished(len(matching))
        await probe.nothing_more_comes()
        reader.expect_once([name.encode() for name in matching], f"subscription to {pattern}")
        wrong = [message.topic for message in came if message.topic.encode() != message.data]
        expect(not wrong, f"a message names the topic it was published to, not {wrong}")


CHECKS = (
    *collect(
        fulfils_the_protocol,
        ping_answers,
        a_message_is_delivered_once,
        data_arrives_byte_for_byte,
        position_rises,
        topics_do_not_mix,
        one_subscription_ends_and_the_others_go_on,
        nobody_need_be_subscribed,
        bulk_publish_delivers_all,
        concurrent_publishers_lose_nothing,
        cancelled_publishers_harm_nobody,
    ),
    *collect(each_group_receives_every_message, when=lambda promises: promises.groups),
    *collect(content_type_arrives, when=lambda promises: promises.keeps_content_type),
    *collect(metadata_arrives, when=lambda promises: promises.keeps_metadata),
    *collect(bulk_publish_names_what_failed, when=lambda promises: promises.refused is not None),
    *collect(
        expired_messages_are_not_delivered,
        needs=(PubSubFeature.MESSAGE_TTL,),
        when=lambda promises: promises.durable,
    ),
    *collect(time_to_live_leaves_prompt_delivery_alone, needs=(PubSubFeature.MESSAGE_TTL,)),
    *collect(wildcards_match, needs=(PubSubFeature.SUBSCRIBE_WILDCARDS,)),
)
