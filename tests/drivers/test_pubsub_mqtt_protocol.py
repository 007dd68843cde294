"""What pubsub.mqtt3 knows without a network: packets, topics, what a session holds."""

from __future__ import annotations

from contextlib import asynccontextmanager

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given
from meshnode_mqtt import _packets
from meshnode_mqtt._held import HeldMessages
from meshnode_mqtt._link import Link
from meshnode_mqtt._options import Broker
from meshnode_mqtt._packets import Ack, ConnAck, Decoder, PingResp, ProtocolError, Publish, SubAck
from meshnode_mqtt._topics import check_filter, check_topic, matches, without_share

from meshnode.errors import ComponentUnavailable

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
IDS = st.integers(1, 0xFFFF)
PUBLISHES = st.builds(
    lambda topic, data, qos, retain, dup, number: Publish(
        topic, data, qos, retain, dup, number if qos else 0
    ),
    TEXT,
    st.binary(max_size=300),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    IDS,
)
ACKS = st.builds(Ack, st.sampled_from([4, 5, 6, 7]), IDS)


def encoded(packet):
    return (
        _packets.publish(packet)
        if isinstance(packet, Publish)
        else _packets.ack(packet.kind, packet.packet_id)
    )


def decoded(*pieces):
    decoder = Decoder()
    found = []
    for piece in pieces:
        decoder.feed(piece)
        while (packet := decoder.next()) is not None:
            found.append(packet)
    return found


@given(st.lists(PUBLISHES | ACKS, max_size=5), st.integers(1, 50))
def test_what_is_written_is_read(packets, size):
    """In pieces of any size."""
    stream = b"".join(encoded(packet) for packet in packets)
    assert decoded(*[stream[at : at + size] for at in range(0, len(stream), size)]) == packets


@given(st.binary(max_size=200))
def test_anything_is_read_or_refused(data):
    try:
        decoded(data)
    except ProtocolError:
        pass


def test_the_bytes_of_the_specification():
    assert (
        _packets.connect("me", clean=True, keep_alive=30) == b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x1e\x00\x02me"
    )
    assert _packets.connect("me", clean=False, keep_alive=30, user="u", password="p") == (
        b"\x10\x14\x00\x04MQTT\x04\xc0\x00\x1e\x00\x02me\x00\x01u\x00\x01p"
    )
    assert _packets.publish(Publish("a/b", b"x", 1, True, packet_id=10)) == b"\x33\x08\x00\x03a/b\x00\x0ax"
    assert _packets.subscribe(10, "a/b", 1) == b"\x82\x08\x00\x0a\x00\x03a/b\x01"
    assert _packets.unsubscribe(10, "a/b") == b"\xa2\x07\x00\x0a\x00\x03a/b"
    assert _packets.ack(_packets.PUBREL, 10) == b"\x62\x02\x00\x0a"
    large = _packets.publish(Publish("t", bytes(200)))
    assert large[:3] == b"\x30\xcb\x01"
    assert decoded(b"\x20\x02\x01\x00\x90\x03\x00\x0a\x80\xd0\x00\xb0\x02\x00\x0a") == [
        ConnAck(True, 0),
        SubAck(10, b"\x80"),
        PingResp(),
        Ack(_packets.UNSUBACK, 10),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\x00",  # a client's packet
        b"\x36\x05\x00\x01t\x00\x01",  # QoS 3
        b"\x32\x05\x00\x01t\x00\x00",  # no packet id
        b"\x30\x02\x00\x05",  # a topic longer than the packet
        b"\x30\x03\x00\x01\xff",  # no UTF-8
        b"\x40\x01\x00",
        b"\x90\x02\x00\x01",
        b"\xd0\x01\x00",
    ],
)
def test_malformed_packets(data):
    with pytest.raises(ProtocolError):
        decoded(data)


def test_a_topic_that_is_too_long():
    with pytest.raises(ValueError, match="too long"):
        _packets.publish(Publish("t" * 70_000, b""))


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("+/b", "a/b", True),
        ("+", "a/b", False),
        ("+/+", "/b", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("#", "a", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
        ("$share/g/a/+", "a/b", True),
        ("$share/g/#", "x", True),
        ("a.c", "abc", False),
    ],
)
def test_matching(pattern, topic, expected):
    assert matches(pattern, topic) is expected


def test_shares():
    assert without_share("$share/g/a/b") == "a/b"
    assert without_share("a/$share/g/b") == "a/$share/g/b"
    assert check_filter("$share/g/a/#") == ""
    assert check_filter("$share//a")
    assert check_filter("$share/g")
    assert check_topic("a/b") == ""


async def never(*_arguments):
    await trio.sleep_forever()


BROKER = Broker("here", 1883, "", "", None)


@asynccontextmanager
async def linked(room=trio.lowlevel.checkpoint):
    """A link whose packets are collected, and the other side of it."""
    ours, theirs = trio.testing.memory_stream_pair()
    end, packets = trio.Event(), []
    link = Link(BROKER, ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, packets.append, room, end)
        yield link, theirs, packets, end
        nursery.cancel_scope.cancel()


async def test_a_broker_that_falls_silent(autojump_clock):
    with pytest.RaisesGroup(pytest.RaisesExc(ComponentUnavailable, match="does not answer")):
        async with linked():
            await trio.sleep(60)


async def test_a_broker_that_answers_pings(autojump_clock):
    async with linked() as (_link, theirs, packets, _end):
        for _ in range(4):
            assert await theirs.receive_some(100) == _packets.PINGREQ
            await theirs.send_all(bytes([0xD0, 0]))
        await trio.testing.wait_all_tasks_blocked()
    assert packets == [PingResp()] * 4


async def test_while_nothing_is_read_silence_means_nothing(autojump_clock):
    """We are full; the broker's answers wait behind what we do not take."""
    async with linked(never) as (_link, theirs, packets, _end):
        await theirs.send_all(encoded(Publish("t", b"1")) + bytes([0xD0, 0]))
        await trio.sleep(300)
    assert packets == [Publish("t", b"1")]


async def test_goodbye_is_said_and_answered(autojump_clock):
    async with linked() as (link, theirs, _received, end):
        link.put(b"last")
        end.set()
        received = b""
        while not received.endswith(_packets.DISCONNECT):
            received += await theirs.receive_some(100)
        assert received == b"last" + _packets.DISCONNECT
        await theirs.aclose()


class Session:
    """A session's other side: what was acknowledged, and a `HeldMessages`."""

    def __init__(self):
        self.acknowledged = []
        self.held = HeldMessages(lambda number, qos: self.acknowledged.append((number, qos)))

    def sends(self, number, data=b"x", *, dup=False, qos=1):
        return self.held.receive(Publish("t", data, qos, dup=dup, packet_id=number if qos else 0))


def test_finished_while_connected():
    broker = Session()
    broker.held.connected(session_present=False)
    one, two = broker.sends(1), broker.sends(2, qos=2)
    assert [one.position, two.position] == [1, 2]
    broker.held.finish(two)
    broker.held.finish(one)
    assert broker.acknowledged == [(2, 2), (1, 1)]
    assert len(broker.held) == 0


def test_finished_while_the_connection_is_gone():
    """The broker sends it again, and is told."""
    broker = Session()
    broker.held.connected(session_present=False)
    one, two = broker.sends(1), broker.sends(2)
    broker.held.disconnected()
    broker.held.finish(one)
    assert broker.acknowledged == []
    broker.held.connected(session_present=True)
    broker.held.finish(two)
    assert broker.acknowledged == []
    assert broker.sends(1, dup=True) is None
    assert broker.sends(2, dup=True) is None
    assert broker.acknowledged == [(1, 1), (2, 1)]


def test_under_way_across_a_reconnection():
    broker = Session()
    broker.held.connected(session_present=False)
    one = broker.sends(1)
    broker.held.disconnected()
    broker.held.connected(session_present=True)
    assert broker.sends(1, dup=True) is None
    broker.held.finish(one)
    assert broker.acknowledged == [(1, 1)]


@pytest.mark.parametrize(("data", "dup"), [(b"another", True), (b"x", False)])
def test_a_number_that_is_another_message_s_now(data, dup):
    """The same number, but not the same message: without DUP it is new, be it the same bytes."""
    broker = Session()
    broker.held.connected(session_present=False)
    one = broker.sends(1)
    broker.held.disconnected()
    broker.held.finish(one)
    broker.held.connected(session_present=True)
    new = broker.sends(1, data, dup=dup)
    assert new is not None
    assert broker.acknowledged == []
    broker.held.finish(new)
    assert broker.acknowledged == [(1, 1)]


def test_a_session_that_the_broker_lost():
    broker = Session()
    broker.held.connected(session_present=True)
    one = broker.sends(1)
    broker.held.disconnected()
    broker.held.connected(session_present=False)
    assert broker.sends(1, dup=False) is not None
    broker.held.finish(one)
    assert broker.acknowledged == []


def test_parked_messages_keep_their_order():
    broker = Session()
    broker.held.connected(session_present=True)
    messages = [broker.sends(number) for number in (5, 1, 3)]
    broker.held.park([messages[2], messages[0]])
    broker.held.park([messages[1], broker.sends(0, qos=0)])
    assert broker.held.unpark(lambda topic: topic == "u") == []
    assert broker.held.unpark(lambda topic: topic == "t") == messages
    assert broker.held.unpark(lambda topic: topic == "t") == []
