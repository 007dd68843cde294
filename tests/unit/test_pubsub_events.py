"""Envelopes and events: what a publisher gave is what a subscriber gets, to the byte; the CNCF's own package
reads what we write.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.blocks.pubsub.envelope import Origin, expiration_text, wrap
from meshnode.blocks.pubsub.events import event_of, topic_event
from meshnode.blocks.pubsub.jsontext import is_json_text, join_members, split_members
from meshnode.blocks.pubsub.routes import Routes
from meshnode.blocks.pubsub.scopes import TopicScopes
from meshnode.config.subscription import Rule
from meshnode.interfaces import Message

ORIGIN = Origin("id-1", "app", "orders", "pubsub", "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "a=b")
CONTENT_TYPES = [
    "",
    "text/plain",
    "application/json",
    "application/octet-stream",
    "application/xml",
    "image/png",
    "application/vnd.order+json",
    "APPLICATION/JSON; charset=utf-8",
]


def wrapped(data: bytes, content_type: str = "application/json", **metadata: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(wrap(data, content_type, metadata, ORIGIN))
    return found


def received(event: bytes, content_type: str = "", metadata: Mapping[str, str] | None = None) -> Any:
    message = Message("orders", event, content_type, metadata or {})
    return event_of(message, "pubsub", "orders", raw=False, new_id=lambda: "fresh")


@given(st.binary() | st.text().map(str.encode), st.sampled_from(CONTENT_TYPES))
def test_any_data_comes_out_as_it_went_in(data: bytes, content_type: str) -> None:
    event = received(wrap(data, content_type, {}, ORIGIN))
    if _is_json_of_no_bytes(data, content_type):
        return
    assert event.data == data


def _is_json_of_no_bytes(data: bytes, content_type: str) -> bool:
    """Spaces around JSON go, and `null` is no data: both are so in Dapr too. Text under a JSON type that is
    no JSON becomes a JSON string.
    """
    if "json" not in content_type.lower():
        return False
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return not is_json_text(text) or text != text.strip(" \t\r\n") or text == "null"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values), st.sampled_from([None, 1]), st.booleans())
def test_members_are_split_where_json_says(members: dict[str, Any], indent: int | None, plain: bool) -> None:
    text = json.dumps(members, indent=indent, ensure_ascii=plain)
    found = split_members(text)
    assert {name: member.value for name, member in found.items()} == members
    assert all(json.loads(member.text) == member.value for member in found.values())
    assert json.loads(join_members({name: member.text for name, member in found.items()})) == members


@given(st.text())
def test_what_is_no_object_is_refused(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        return
    with pytest.raises(ValueError):
        split_members(text)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"a"}', '{"a":1,}', '{"a":1} x', '{"a":NaN}', "{1:2}", '{"a":' + "[" * 100_000]
)
def test_broken_objects_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        split_members(text)


def test_numbers_and_escapes_keep_their_text() -> None:
    data = b'{"price": 1.10, "big": 123456789012345678901234567890, "e": 1e400, "s": "\\u00e9\\/"}'
    assert received(wrap(data, "application/json", {}, ORIGIN)).data == data


def test_the_envelope_is_daprs() -> None:
    assert wrapped(b'{"a":1}') == {
        "id": "id-1",
        "source": "app",
        "specversion": "1.0",
        "type": "com.dapr.event.sent",
        "datacontenttype": "application/json",
        "topic": "orders",
        "pubsubname": "pubsub",
        "traceid": ORIGIN.traceparent,
        "traceparent": ORIGIN.traceparent,
        "tracestate": "a=b",
        "data": {"a": 1},
    }
    assert wrapped(b"text", "")["datacontenttype"] == "text/plain"
    assert wrapped(b"\x00\xff", "application/octet-stream")["data_base64"] == "AP8="
    assert wrapped(b"no json", "application/json")["data"] == "no json"


def test_a_publisher_may_override_attributes() -> None:
    metadata = {
        "cloudevent.id": "mine",
        "CloudEvent.Type": "order",
        "cloudevent.source": "shop",
        "cloudevent.subject": "socks",
        "cloudevent.traceid": "00-y",
        "cloudevent.traceparent": "00-x",
        "cloudevent.data": "not this",
        "cloudevent.topic": "nor this",
    }
    event = json.loads(wrap(b"1", "application/json", metadata, ORIGIN))
    assert (event["id"], event["type"], event["source"]) == ("mine", "order", "shop")
    assert event["subject"] == "socks"
    assert (event["traceparent"], event["traceid"]) == ("00-x", "00-x")
    assert (event["data"], event["topic"]) == (1, "orders")


def test_structured_events_pass_through() -> None:
    own = b'{"id":"7","type":"t","source":"s","specversion":"1.0","extra":"x","data":{"n":1.50}}'
    content_type = "application/cloudevents+json; charset=utf-8"
    text = wrap(own, content_type, {}, ORIGIN).decode()
    assert '"n":1.50' in text
    event = json.loads(text)
    assert (event["id"], event["type"], event["source"], event["extra"]) == ("7", "t", "s", "x")
    assert (event["topic"], event["pubsubname"], event["traceparent"]) == (
        "orders",
        "pubsub",
        ORIGIN.traceparent,
    )
    bare = json.loads(wrap(b'{"data":"x"}', content_type, {}, ORIGIN))
    assert (bare["id"], bare["source"], bare["type"], bare["specversion"]) == (
        "id-1", "app", "com.dapr.event.sent", "1.0",
    )  # fmt: skip
    for broken in (b"", b"[]", b"{", b"\xff"):
        with pytest.raises(ValueError):
            wrap(broken, content_type, {}, ORIGIN)


def test_the_cncf_package_reads_it() -> None:
    from cloudevents.http import from_json

    event = from_json(wrap(b'{"a":1}', "application/json", {}, ORIGIN))
    assert (event["id"], event["source"], event["type"], event.data) == (
        "id-1", "app", "com.dapr.event.sent", {"a": 1},
    )  # fmt: skip
    binary = from_json(wrap(b"\xff\x00", "application/octet-stream", {}, ORIGIN))
    assert binary.data == b"\xff\x00"


def test_what_daprd_writes_is_read() -> None:
    """Go sorts the members; a +json document is a string there."""
    text = json.dumps(
        {
            "data": "plain",
            "datacontenttype": "text/plain",
            "expiration": "2020-01-01T00:00:00Z",
            "id": "1",
            "pubsubname": "pubsub",
            "source": "other",
            "specversion": "1.0",
            "topic": "orders",
            "traceid": "00-y",
            "traceparent": "00-y",
            "tracestate": "",
            "type": "com.dapr.event.sent",
        }
    ).encode()
    event = received(text)
    assert (event.data, event.text("source")) == (b"plain", "other")
    assert event.expired(1.6e9)
    assert not event.expired(1.5e9)
    document = json.dumps({"datacontenttype": "application/vnd.x+json", "data": '{"a": 1}'}).encode()
    assert received(document).data == b'{"a": 1}'


@pytest.mark.parametrize("moment", [0.0, 1.5, 1_700_000_000.001])
def test_nothing_expires_early(moment: float) -> None:
    event = received(wrap(b"", "", {}, ORIGIN, expiration=expiration_text(moment)))
    assert not event.expired(moment)
    assert event.expired(moment + 1.001)


def test_an_expiration_that_is_no_time_is_none() -> None:
    for value in ('"soon"', "5", '"2020-01-01"', '"2020-01-01T00:00:00"'):
        assert not received(b'{"expiration":' + value.encode() + b"}").expired(2e9)


def test_binary_mode_takes_attributes_from_metadata() -> None:
    metadata = {"ce_id": "9", "CE_Type": "t", "other": "x", "traceparent": "00-z"}
    event = received(b"\x01\x02", "application/octet-stream", metadata)
    assert (event.data, event.text("id"), event.text("type")) == (b"\x01\x02", "9", "t")
    assert (event.text("traceparent"), event.text("traceid")) == ("00-z", "00-z")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"data_base64": 1}', b'{"data_base64": "%"}'])
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        received(data)


def test_the_callback_message_has_daprs_fields() -> None:
    event = received(wrap(b'{"a":1}', "application/json", {}, ORIGIN))
    request = topic_event(event, "pubsub", "orders", "/path")
    assert (request.id, request.source, request.type, request.spec_version) == (
        "id-1", "app", "com.dapr.event.sent", "1.0",
    )  # fmt: skip
    assert (request.data, request.data_content_type) == (b'{"a":1}', "application/json")
    extensions = request.extensions.to_dict() if request.extensions else {}
    assert extensions.keys() == {"topic", "pubsubname", "traceid", "traceparent", "tracestate"}


def test_base64_is_decoded() -> None:
    text = base64.b64encode(b"\x00\x01").decode()
    assert received(b'{"data_base64":"%s"}' % text.encode()).data == b"\x00\x01"


# --- routes


def test_rules_are_tried_in_order() -> None:
    rules = [
        Rule(match='event.type == "widget"', path="/w"),
        Rule(match="has(event.data.n) && event.data.n > 5", path="/n"),
    ]
    routes = Routes(rules, "/default")
    assert routes.path_of(received(b'{"type":"widget","data":{"n":9}}')) == "/w"
    assert routes.path_of(received(b'{"type":"x","data":{"n":9}}')) == "/n"
    assert routes.path_of(received(b'{"type":"x","data":{}}')) == "/default"
    assert Routes(rules[:1], None).path_of(received(b'{"type":"x"}')) is None
    assert Routes([Rule(match=" ", path="/all")], None).path_of(received(b"{}")) == "/all"
    assert Routes().path_of(received(b"{}")) == ""


def test_rules_that_have_no_answer_say_so() -> None:
    for match in ("event.data.n > 5", "event.type"):
        with pytest.raises(ValueError):
            Routes([Rule(match=match, path="/x")], "/y").path_of(received(b'{"type":"x"}'))
    with pytest.raises(ValueError):
        Routes([Rule(match="event.", path="/x")])


# --- scopes


@pytest.mark.parametrize(
    ("metadata", "topic", "publish", "subscribe"),
    [
        ({}, "a", True, True),
        ({"allowedTopics": "a, b"}, "a", True, True),
        ({"allowedTopics": "a, b"}, "c", False, False),
        ({"protectedTopics": "a"}, "a", False, False),
        ({"protectedTopics": "a", "publishingScopes": "app=a"}, "a", True, False),
        ({"publishingScopes": "app=a,b ; other=c"}, "b", True, True),
        ({"publishingScopes": "app=a,b ; other=c"}, "c", False, True),
        ({"subscriptionScopes": "app="}, "a", True, False),
        ({"subscriptionScopes": "other=a"}, "z", True, True),
        ({"subscriptionScopes": "app=a;app=b"}, "b", True, True),
        ({"allowedTopics": "a", "publishingScopes": "app=b"}, "b", False, False),
    ],
)
def test_topic_scopes(metadata: dict[str, str], topic: str, publish: bool, subscribe: bool) -> None:
    scopes = TopicScopes.of(metadata, "app")
    assert (scopes.may_publish(topic), scopes.may_subscribe(topic)) == (publish, subscribe)
