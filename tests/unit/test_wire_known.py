"""The well-known types: their Python values and their JSON forms, with protobuf's own as oracle."""

# mypy: disable-error-code="attr-defined,no-untyped-call"
# protobuf's generated modules have no types.

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import betterproto2
import pytest
from google.protobuf import (
    any_pb2,
    duration_pb2,
    field_mask_pb2,
    json_format,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.wire import DecodeError
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.internals import v1 as internals
from meshnode.wire.google import protobuf, rpc

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
SPANS = st.timedeltas(min_value=timedelta(days=-3_000_000), max_value=timedelta(days=3_000_000))
MOMENTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]))


def oracle_json(message: Any) -> Any:
    return json.loads(json_format.MessageToJson(message))


@settings(deadline=None)  # the first example loads a codec
@given(span=SPANS)
def test_durations(span: timedelta) -> None:
    theirs = duration_pb2.Duration()
    theirs.FromTimedelta(span)
    ours = protobuf.Duration.from_timedelta(span)
    assert bytes(ours) == theirs.SerializeToString()
    assert ours.to_timedelta() == span
    assert ours.to_dict() == oracle_json(theirs)
    assert protobuf.Duration.from_dict(ours.to_dict()) == ours
    policy = common.JobFailurePolicyConstant(interval=span)
    assert common.JobFailurePolicyConstant.parse(bytes(policy)) == policy
    assert common.JobFailurePolicyConstant.from_json(policy.to_json()) == policy


@settings(deadline=None)  # the first example loads a codec
@given(moment=MOMENTS)
def test_timestamps(moment: datetime) -> None:
    try:
        theirs = timestamp_pb2.Timestamp()
        theirs.FromDatetime(moment)
        expected = oracle_json(theirs)
    except (ValueError, json_format.Error):
        return  # an offset that leaves the years 1 to 9999
    ours = protobuf.Timestamp.from_datetime(moment)
    assert bytes(ours) == theirs.SerializeToString()
    assert ours.to_datetime() == moment
    assert ours.to_dict() == expected
    assert protobuf.Timestamp.from_dict(ours.to_dict()) == ours
    assert protobuf.Timestamp.from_dict(moment.isoformat()) == ours
    event = internals.TimerFiredEvent(fire_at=moment)
    assert internals.TimerFiredEvent.parse(bytes(event)) == event


def test_a_timestamp_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="aware"):
        bytes(internals.TimerFiredEvent(fire_at=datetime(2026, 1, 1)))


@pytest.mark.parametrize("text", ["1", "1.5", "s", "1.s", "1.1234567890s", "--1s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        protobuf.Duration.from_dict(text)


@pytest.mark.parametrize("text", ["", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00.1234567890Z"])
def test_what_is_no_timestamp(text: str) -> None:
    with pytest.raises(ValueError, match="not an RFC 3339"):
        protobuf.Timestamp.from_dict(text)


def test_times_out_of_range_are_refused() -> None:
    moment = bytes(protobuf.Timestamp(seconds=1 << 40))
    with pytest.raises(DecodeError, match="out of range"):
        internals.TimerFiredEvent.parse(b"\x0a" + bytes((len(moment),)) + moment)
    assert protobuf.Timestamp.parse(moment).seconds == 1 << 40


def test_a_time_in_two_parts_is_merged() -> None:
    parts = b"\x0a\x02\x08\x01" + b"\x0a\x04\x10" + b"\x80\x89\x7a"
    assert common.JobFailurePolicyConstant.parse(parts).interval == timedelta(seconds=1, milliseconds=2)


@settings(deadline=None)  # the first example loads a codec
@given(value=st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_structs(value: dict[str, Any]) -> None:
    theirs = json_format.ParseDict(value, struct_pb2.Struct())
    ours = protobuf.Struct.from_dict(value)
    assert protobuf.Struct.parse(theirs.SerializeToString()) == ours
    assert struct_pb2.Struct.FromString(bytes(ours)) == theirs
    assert ours.to_dict() == value


def test_a_value_of_no_kind_has_no_json() -> None:
    with pytest.raises(ValueError, match="without a kind"):
        protobuf.Value().to_dict()


def test_only_json_values_make_a_value() -> None:
    with pytest.raises(TypeError, match="not a JSON value: bytes"):
        protobuf.Value.from_dict(b"x")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("BoolValue", True),
        ("BoolValue", False),
        ("Int32Value", -5),
        ("Int64Value", 1 << 40),
        ("UInt32Value", 7),
        ("UInt64Value", 1 << 63),
        ("FloatValue", 1.5),
        ("DoubleValue", -2.25),
        ("StringValue", "text"),
        ("StringValue", ""),
        ("BytesValue", b"\x00\xff"),
    ],
)
def test_wrappers(kind: str, value: Any) -> None:
    cls = getattr(protobuf, kind)
    theirs = getattr(wrappers_pb2, kind)(value=value)
    ours = cls.from_wrapped(value)
    assert bytes(ours) == theirs.SerializeToString()
    assert ours.to_wrapped() == value
    assert ours.to_dict() == oracle_json(theirs)
    assert cls.from_dict(ours.to_dict()) == ours


@pytest.mark.parametrize(
    "message",
    [
        rpc.ErrorInfo(reason="r", domain="dapr.io", metadata={"a": "b"}),
        protobuf.StringValue(value="text"),
        protobuf.Duration(seconds=3),
        protobuf.Struct.from_dict({"a": 1.0}),
    ],
    ids=lambda message: type(message).__name__,
)
def test_any(message: betterproto2.Message) -> None:
    packed = protobuf.Any.pack(message)
    assert packed.unpack() == message
    theirs = any_pb2.Any.FromString(bytes(packed))
    assert (theirs.type_url, theirs.value) == (packed.type_url, bytes(message))
    assert protobuf.Any.from_dict(packed.to_dict()) == packed


def test_any_of_nothing_and_of_the_unknown() -> None:
    assert protobuf.Any().unpack() is None
    assert protobuf.Any.from_dict(protobuf.Any().to_dict()) == protobuf.Any()
    with pytest.raises(TypeError, match=r"no message class is loaded for 'example\.com/a\.B'"):
        protobuf.Any(type_url="example.com/a.B").unpack()


def test_field_mask_travels() -> None:
    theirs = field_mask_pb2.FieldMask(paths=["a.b", "c"])
    assert protobuf.FieldMask.parse(theirs.SerializeToString()).paths == ["a.b", "c"]


def test_messages_are_dataclasses_for_those_who_ask() -> None:
    item = common.StateItem(key="k", value=b"v")
    assert dataclasses.is_dataclass(item)
    assert [field.name for field in dataclasses.fields(item)] == [
        "key",
        "value",
        "etag",
        "metadata",
        "options",
    ]
    assert dataclasses.replace(item, key="l") == common.StateItem(key="l", value=b"v")
    match item:
        case common.StateItem(key, _, None):
            assert key == "k"
        case _:
            pytest.fail("positional patterns do not match")


def test_fields_can_be_given_by_position() -> None:
    assert common.Etag("1") == common.Etag(value="1")
    assert common.StateItem("k", b"v", None, {"a": "b"}).metadata == {"a": "b"}


def test_json_of_a_message() -> None:
    item = common.StateItem(
        key="k",
        value=b"v",
        options=common.StateOptions(concurrency=common.StateOptionsStateConcurrency.CONCURRENCY_LAST_WRITE),
    )
    form = item.to_dict()
    assert form == {"key": "k", "value": "dg==", "options": {"concurrency": "CONCURRENCY_LAST_WRITE"}}
    assert common.StateItem.from_dict(form) == item
