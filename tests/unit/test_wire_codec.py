"""The generated codec against protobuf's C implementation, the oracle, both ways and on bytes of every kind.

Where the two differ on purpose: a field number 0 is refused always (the oracle lets it pass in some places),
and a Timestamp or Duration that datetime cannot hold is refused, because betterproto2's classes hold a
datetime.
"""

from __future__ import annotations

import math
import pickle
import random
import sys
from io import BytesIO
from typing import Any

import betterproto2
import pytest
from google.protobuf.internal import api_implementation
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_oracle import Scribe, agree, committed, delimited, load_pairs

from meshnode.wire import DecodeError
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google import protobuf
from meshnode.wire.grpc.health import v1 as health
from meshnode.wire.grpc.reflection import v1 as reflection

PAIRS = load_pairs(committed())
NAMES = sorted(PAIRS)


def test_the_oracle_is_the_c_implementation() -> None:
    assert api_implementation.Type() == "upb"  # type: ignore[no-untyped-call]


@settings(max_examples=500, deadline=None)
@given(name=st.sampled_from(NAMES), chance=st.randoms(use_true_random=False))
def test_reads_what_the_oracle_reads(name: str, chance: random.Random) -> None:
    agree(PAIRS[name], Scribe(chance).message(PAIRS[name].descriptor))


@settings(max_examples=500, deadline=None)
@given(name=st.sampled_from(NAMES), chance=st.randoms(use_true_random=False))
def test_refuses_what_the_oracle_refuses(name: str, chance: random.Random) -> None:
    scribe = Scribe(chance)
    agree(PAIRS[name], scribe.damaged(scribe.message(PAIRS[name].descriptor)))


@given(name=st.sampled_from(NAMES), encoded=st.binary(max_size=40))
def test_any_bytes(name: str, encoded: bytes) -> None:
    agree(PAIRS[name], encoded)


@pytest.mark.parametrize("name", NAMES)
def test_every_message_both_ways(name: str) -> None:
    scribe = Scribe(random.Random(name))
    taken = sum(agree(PAIRS[name], scribe.message(PAIRS[name].descriptor)) for _ in range(30))
    assert taken > 5


ITEM, STRUCT, LIST = "dapr.proto.common.v1.StateItem", "google.protobuf.Struct", "google.protobuf.ListValue"
INT32, UINT32, INT64 = (f"google.protobuf.{kind}Value" for kind in ("Int32", "UInt32", "Int64"))
BOOL, POLICY = "google.protobuf.BoolValue", "dapr.proto.common.v1.JobFailurePolicy"
PACKED, STATUS = "grpc.reflection.v1.ExtensionNumberResponse", "grpc.health.v1.HealthCheckResponse"
CONFIG = "dapr.proto.runtime.v1.GetConfigurationResponse"

ACCEPTED = [
    ("ten-byte varint", INT64, b"\x08" + b"\xff" * 9 + b"\x01"),
    ("varint beyond 64 bits is cut", INT64, b"\x08" + b"\xff" * 9 + b"\x7f"),
    ("bool from the highest bit", BOOL, b"\x08" + b"\x80" * 9 + b"\x01"),
    ("bool beyond 64 bits is false", BOOL, b"\x08" + b"\x80" * 9 + b"\x02"),
    ("uint32 takes the low half", UINT32, b"\x08\xff\xff\xff\xff\xff\x01"),
    ("int32 takes the low half", INT32, b"\x08\xff\xff\xff\xff\xff\x01"),
    ("padded tag", ITEM, b"\x8a\x80\x80\x80\x00\x01k"),
    ("padded length", ITEM, b"\x0a\x81\x80\x80\x80\x00k"),
    ("highest field number", ITEM, b"\xfa\xff\xff\xff\x0f\x01k"),
    ("padded tag of an unknown field", ITEM, b"\xf8\x80\x00\x01"),
    ("unknown fields between known ones", ITEM, b"\x78\x01\x0a\x01k\x78\x02"),
    ("group in place of a string", ITEM, b"\x0b\x0c"),
    ("nested groups", ITEM, b"\x7b\x0b\x0c\x08\x01\x7c"),
    ("100 groups", ITEM, b"\x7b" * 100 + b"\x7c" * 100),
    ("packed", PACKED, b"\x12\x02\x01\x02"),
    ("unpacked", PACKED, b"\x10\x01\x10\x02"),
    ("both", PACKED, b"\x10\x01\x12\x02\x02\x03\x10\x04"),
    ("packed where one is expected", INT32, b"\x0a\x02\x01\x02"),
    ("negative enum value", STATUS, b"\x08" + b"\xff" * 9 + b"\x01"),
    ("enum value nobody knows", STATUS, b"\x08\x63"),
    ("enum value beyond 32 bits", STATUS, b"\x08\x80\x80\x80\x80\x10"),
    ("map entry without key and value", ITEM, b'"\x00'),
    ("map entry with two keys", ITEM, b'"\x09\x0a\x01a\x12\x01b\x0a\x01c'),
    ("map entry twice", ITEM, b'"\x06\x0a\x01a\x12\x01b"\x06\x0a\x01a\x12\x01c'),
    ("map entry with a third field", ITEM, b'"\x08\x0a\x01a\x12\x01b\x18\x01'),
    ("map entry of other wire types", ITEM, b'"\x04\x08\x01\x10\x01'),
    ("map value in two parts", CONFIG, b"\x0a\x0d\x0a\x01a\x12\x03\x0a\x01v\x12\x03\x12\x01w"),
    ("map entry without its message", CONFIG, b"\x0a\x03\x0a\x01a"),
    ("message in two parts", ITEM, b"*\x02\x08\x01*\x02\x10\x02"),
    ("oneof: the last one wins", POLICY, b"\x12\x02\x10\x01\x0a\x00"),
    ("oneof: the same in two parts", POLICY, b"\x12\x02\x10\x01\x12\x04\x0a\x02\x08\x01"),
    ("oneof: away and back starts anew", POLICY, b"\x12\x02\x10\x01\x0a\x00\x12\x04\x0a\x02\x08\x01"),
    ("presence of a zero", "dapr.proto.common.v1.JobFailurePolicyConstant", b"\x10\x00"),
    ("negative zero", "google.protobuf.DoubleValue", b"\x09" + b"\0" * 7 + b"\x80"),
    ("a string with NUL", ITEM, b"\x0a\x01\x00"),
]
REFUSED = [
    ("eleven-byte varint", INT64, b"\x08" + b"\x80" * 10 + b"\x00"),
    ("eleven-byte varint, unknown", UINT32, b"\x10" + b"\x80" * 10 + b"\x00"),
    ("six-byte tag", ITEM, b"\x8a\x80\x80\x80\x80\x00\x01k"),
    ("tag beyond 32 bits", ITEM, b"\x8a\x80\x80\x80\x10\x01k"),
    ("field number 0", ITEM, b"\x02\x01k"),
    ("wire type 6", ITEM, b"\x0e\x01k"),
    ("wire type 7", ITEM, b"\x0f"),
    ("six-byte length", ITEM, b"\x0a\x81\x80\x80\x80\x80\x00k"),
    ("length beyond 31 bits", ITEM, b"\x0a\xff\xff\xff\xff\x0f"),
    ("length beyond 64 bits, unknown", ITEM, b"\x7a\x81\x80\x80\x80\x80\x80\x80\x80\x80\x02k"),
    ("tag and nothing", ITEM, b"\x0a"),
    ("length and nothing", ITEM, b"\x0a\x01"),
    ("nested message too long for its parent", ITEM, b"*\x02\x08"),
    ("field too long for its nested message", ITEM, b"\x1a\x02\x0a\x05abcde"),
    ("varint running out of its nested message", ITEM, b"*\x02\x08\x80\x01"),
    ("fixed running out", "google.protobuf.DoubleValue", b"\x09\0\0\0"),
    ("unknown fixed running out", ITEM, b"\x7d\0\0"),
    ("group end without a group", ITEM, b"\x0c"),
    ("group end of another group", ITEM, b"\x0b\x14"),
    ("group without an end", ITEM, b"\x7b\x08\x01"),
    ("101 groups", ITEM, b"\x7b" * 101 + b"\x7c" * 101),
    ("packed varint cut", PACKED, b"\x12\x02\x01\x82"),
    ("packed varint running out", PACKED, b"\x12\x01\x82\x01"),
    ("packed floats of three bytes", "dapr.proto.runtime.v1.VectorRecord", b"\x12\x03abc"),
    ("map entry cut", ITEM, b'"\x05\x0a\x01a\x12\x01b'),
    ("map key running out", ITEM, b'"\x02\x0a\x05abc'),
    ("map key not UTF-8", ITEM, b'"\x03\x0a\x01\xff'),
    ("not UTF-8", ITEM, b"\x0a\x01\xff"),
    ("surrogate", ITEM, b"\x0a\x03\xed\xa0\x80"),
    ("overlong UTF-8", ITEM, b"\x0a\x02\xc0\x80"),
]


def case_id(case: Any) -> str | None:
    return case if isinstance(case, str) else None


@pytest.mark.parametrize(("what", "name", "encoded"), ACCEPTED, ids=[case[0] for case in ACCEPTED])
def test_accepted(what: str, name: str, encoded: bytes) -> None:
    assert agree(PAIRS[name], encoded)


@pytest.mark.parametrize(("what", "name", "encoded"), REFUSED, ids=[case[0] for case in REFUSED])
def test_refused(what: str, name: str, encoded: bytes) -> None:
    assert not agree(PAIRS[name], encoded)


def nested_lists(levels: int) -> bytes:
    """That many messages inside a ListValue, values and lists by turns."""
    out = b""
    for level in range(levels):
        out = delimited(6 if (levels - level) % 2 == 0 else 1, out)
    return out


def nested_structs(levels: int) -> bytes:
    out = b""
    for _ in range(levels):
        out = delimited(1, delimited(2, delimited(5, out)))
    return out


@pytest.mark.parametrize(("levels", "fine"), [(99, True), (100, True), (101, False), (5000, False)])
def test_nesting_is_limited(levels: int, fine: bool) -> None:
    assert agree(PAIRS[LIST], nested_lists(levels)) is fine


@pytest.mark.parametrize(("levels", "fine"), [(33, True), (34, False), (2000, False)])
def test_map_entries_count_as_nesting(levels: int, fine: bool) -> None:
    assert agree(PAIRS[STRUCT], nested_structs(levels)) is fine


@pytest.mark.parametrize(("lists", "groups", "fine"), [(50, 50, True), (50, 51, False), (100, 1, False)])
def test_unknown_groups_count_as_nesting(lists: int, groups: int, fine: bool) -> None:
    out = b"\x7b" * groups + b"\x7c" * groups
    for level in range(lists):
        out = delimited(6 if (lists - level) % 2 == 0 else 1, out)
    assert agree(PAIRS[LIST], out) is fine


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        (LIST, delimited(1, delimited(6, b""))),
        (ITEM, delimited(5, b"\x78\x01")),  # merged into one message that keeps every unknown field
        (ITEM, delimited(4, b"\x18\x01")),
        (ITEM, b"\x7b" * 50 + b"\x7c" * 50),
        (ITEM, b"\x78\x01"),
        (PACKED, delimited(2, b"\x01" * 50)),
        ("dapr.proto.common.v1.JobFailurePolicy", delimited(1, b"") + delimited(2, b"")),
    ],
)
def test_work_grows_no_faster_than_the_input(name: str, unit: bytes) -> None:
    def calls(encoded: bytes) -> int:
        count = 0

        def count_call(*_: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(count_call)
        try:
            PAIRS[name].ours.parse(encoded)
        finally:
            sys.setprofile(None)
        return count

    PAIRS[name].ours.parse(b"")
    few, many = calls(unit * 10), calls(unit * 1000)
    assert many <= few * 100


def test_the_error_names_the_message_and_the_reason() -> None:
    with pytest.raises(DecodeError, match=r"^not a valid StateItem: truncated$"):
        common.StateItem.parse(b"\x0a\x05abc")
    with pytest.raises(ValueError, match="utf-8"):
        common.StateItem.parse(b"\x0a\x01\xff")


@pytest.mark.parametrize("wrap", [bytearray, memoryview])
def test_reads_any_buffer(wrap: Any) -> None:
    encoded = bytes(common.StateItem(key="k", value=b"v"))
    assert common.StateItem.parse(wrap(encoded)) == common.StateItem(key="k", value=b"v")


def test_writes_any_buffer_as_bytes() -> None:
    assert bytes(common.StateItem(value=memoryview(b"v"))) == bytes(common.StateItem(value=b"v"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        common.JobFailurePolicyConstant(max_retries=1 << 32),
        common.JobFailurePolicyConstant(max_retries=-1),
        runtime.TryLockRequest(expiry_in_seconds=1 << 31),
        runtime.TryLockRequest(expiry_in_seconds=-(1 << 31) - 1),
        common.StreamPayload(seq=1 << 64),
        common.StreamPayload(seq=-1),
        protobuf.Int64Value(value=1 << 63),
        common.StateItem(key="\ud800"),
    ],
    ids=str,
)
def test_refuses_to_write_what_does_not_fit(message: betterproto2.Message) -> None:
    with pytest.raises(ValueError, match=r"does not fit|surrogates"):
        bytes(message)


def test_unknown_fields_survive() -> None:
    encoded = b"\x78\x01\x0a\x01k\x7b\x08\x01\x7c"
    message = common.StateItem.parse(encoded)
    assert bytes(message) == b"\x0a\x01k\x78\x01\x7b\x08\x01\x7c"
    request = runtime.SaveStateRequest(states=[message])
    assert bytes(runtime.SaveStateRequest.parse(bytes(request))) == bytes(request)


def test_unknown_enum_values_survive() -> None:
    message = health.HealthCheckResponse.parse(b"\x08\x63")
    assert int(message.status) == 99
    assert bytes(message) == b"\x08\x63"


def test_defaults_are_not_shared() -> None:
    one, other = common.StateItem.parse(b""), common.StateItem.parse(b"")
    one.metadata["a"] = "b"
    assert other.metadata == {}
    assert common.StateItem().metadata == {}


def test_repeated_numbers_are_written_packed() -> None:
    message = reflection.ExtensionNumberResponse(extension_number=[1, 300, -1])
    assert bytes(message) == b"\x12\x0d\x01\xac\x02" + b"\xff" * 9 + b"\x01"


def test_the_other_ways_in_and_out() -> None:
    message = common.StateItem(key="k", etag=common.Etag(value="1"))
    encoded = bytes(message)
    assert message.SerializeToString() == encoded
    assert common.StateItem.FromString(encoded) == message
    assert pickle.loads(pickle.dumps(message)) == message
    stream = BytesIO()
    message.dump(stream, delimit=True)
    stream.seek(0)
    assert common.StateItem().load(stream, betterproto2.SIZE_DELIMITED) == message


def test_load_merges() -> None:
    message = common.StateItem(key="k", value=b"old", metadata={"a": "1"}, etag=common.Etag(value="1"))
    message.load(BytesIO(bytes(common.StateItem(value=b"new", metadata={"b": "2"}))))
    assert message == common.StateItem(
        key="k", value=b"new", metadata={"a": "1", "b": "2"}, etag=common.Etag(value="1")
    )


@pytest.mark.parametrize("size", [5, betterproto2.SIZE_DELIMITED])
def test_load_from_a_stream_that_ends(size: int) -> None:
    with pytest.raises(DecodeError, match="stream ended"):
        common.StateItem().load(BytesIO(b"\x80"), size)


def test_floats_keep_their_sign_and_size() -> None:
    values = [0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324]
    for value in values:
        read = protobuf.DoubleValue.parse(bytes(protobuf.DoubleValue(value=value))).value
        assert (read, math.copysign(1, read)) == (value, math.copysign(1, value))
    record = runtime.VectorRecord(values=[1.5, -0.0, math.inf])
    assert runtime.VectorRecord.parse(bytes(record)) == record
