"""drivers/etcd: the generated messages are those of its proto/, and values of v2 are what protobuf means."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory, timestamp_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from meshnode_etcd.state._message import Time, Value, pack, unpack
from meshnode_etcd.state._values import Wrapped

DRIVER = Path(__file__).parents[2] / "drivers" / "etcd"

SECONDS = st.integers(-(2**63), 2**63 - 1)
NANOS = st.integers(-(2**31), 2**31 - 1)
TIMES = st.none() | st.builds(Time, SECONDS, NANOS)
VALUES = st.builds(Value, st.binary(max_size=300), TIMES, TIMES)


def oracle():
    """Dapr's message as google's protobuf has it."""
    file = descriptor_pb2.FileDescriptorProto(name="value.proto", package="p", syntax="proto3")
    message = file.message_type.add(name="Value")
    field = descriptor_pb2.FieldDescriptorProto
    message.field.add(name="data", number=1, type=field.TYPE_BYTES, label=field.LABEL_OPTIONAL)
    for number, name, kind in ((2, "ts", "Timestamp"), (3, "ttl", "Duration")):
        message.field.add(
            name=name,
            number=number,
            type=field.TYPE_MESSAGE,
            type_name=f".google.protobuf.{kind}",
            label=field.LABEL_OPTIONAL,
        )
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, duration_pb2):
        file.dependency.append(known.DESCRIPTOR.name)
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("p.Value"))


THEIRS = oracle()


def ours(message):
    times = [
        Time(getattr(message, name).seconds, getattr(message, name).nanos) if message.HasField(name) else None
        for name in ("ts", "ttl")
    ]
    return Value(message.data, *times)


@given(VALUES)
def test_both_write_the_same(value):
    message = THEIRS(data=value.data)
    for name, time in (("ts", value.ts), ("ttl", value.ttl)):
        if time is not None:
            getattr(message, name).SetInParent()
            getattr(message, name).seconds = time.seconds
            getattr(message, name).nanos = time.nanos
    assert pack(value) == message.SerializeToString()
    assert unpack(pack(value)) == value


@given(st.binary(max_size=40) | st.builds(lambda value, cut: pack(value)[:cut], VALUES, st.integers(0, 40)))
def test_what_we_take_for_a_message_is_one(raw):
    try:
        value = unpack(raw)
    except ValueError:
        return
    message = THEIRS()
    try:
        message.ParseFromString(raw)
    except DecodeError as error:
        raise AssertionError("protobuf does not take it") from error
    # A message that comes twice is merged there; nobody writes one.
    if raw.count(b"\x12") + raw.count(b"\x1a") < 3:
        assert value == ours(message)


@given(st.binary(max_size=40))
def test_garbage_is_only_refused(raw):
    try:
        unpack(raw)
    except ValueError:
        with pytest.raises(ValueError, match="is not in the layout of v2"):
            Wrapped().decode(raw)


def test_an_expiry_past_all_calendars_is_none():
    far = pack(Value(b"x", Time(2**62), Time(2**62)))
    assert Wrapped().decode(far) == (b"x", {})


def test_generated_files_are_up_to_date():
    spec = importlib.util.spec_from_file_location("generate_etcd", DRIVER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.differences(module.generate()) == [], "run `python drivers/etcd/generate.py`"


def test_a_difference_is_found(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("generate_etcd", DRIVER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WIRE", tmp_path)
    (tmp_path / "old.py").touch()
    wanted = {tmp_path / "new.py": "x = 1\n"}
    assert set(module.differences(wanted)) == {tmp_path / "new.py", tmp_path / "old.py"}
    (tmp_path / "new.py").write_text("x = 2\n")
    assert tmp_path / "new.py" in module.differences(wanted)


@pytest.mark.parametrize("now", [0.0, 1.25, 1_700_000_000.999_999])
def test_the_time_of_writing(now):
    value = unpack(Wrapped().encode(b"", 0, now))
    assert value.ttl is None
    assert abs(value.ts.seconds + value.ts.nanos / 1e9 - now) < 1e-6
    assert 0 <= value.ts.nanos < 10**9
