"""Length-prefixed messages: cutting, limits, compression."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from meshnode.transport import messages
from meshnode.transport.messages import Assembler, frame


@given(
    st.lists(st.tuples(st.binary(max_size=60), st.booleans()), max_size=6),
    st.lists(st.integers(0, 90), max_size=12),
)
def test_any_cutting_gives_the_same_frames(contents: list[tuple[bytes, bool]], cuts: list[int]) -> None:
    frames = [frame(content, compressed) for content, compressed in contents]
    data = b"".join(frames)
    assembler = Assembler(60)
    got: list[bytes] = []
    position = 0
    for cut in cuts:
        got += assembler.feed(data[position : position + cut])
        position += cut
    got += assembler.feed(data[position:])
    assert got == frames
    assert assembler.empty
    assembler.finish()


@given(st.binary(min_size=1, max_size=40), st.data())
def test_a_stream_that_ends_inside_a_message_is_an_error(content: bytes, data: st.DataObject) -> None:
    whole = frame(content)
    end = data.draw(st.integers(1, len(whole) - 1))
    assembler = Assembler()
    assert assembler.feed(whole[:end]) == []
    assert not assembler.empty
    with pytest.raises(GRPCError) as error:
        assembler.finish()
    assert error.value.status is Status.INTERNAL


def test_a_message_that_fills_its_chunk_is_not_copied() -> None:
    chunk = frame(b"x" * 100)
    assert Assembler().feed(chunk)[0] is chunk


def test_empty_messages_and_empty_chunks() -> None:
    assembler = Assembler()
    assert assembler.feed(b"") == []
    assert assembler.feed(frame(b"") * 3) == [frame(b"")] * 3
    assert assembler.feed(b"\0") == []
    assert assembler.feed(b"") == []
    assert assembler.feed(b"\0\0\0\0") == [frame(b"")]


def test_a_message_over_the_limit_is_refused_from_its_prefix() -> None:
    assert Assembler(10).feed(frame(b"x" * 10))
    for head in (b"\0\0\0\0\x0b", frame(b"a") + b"\0\0\0\0\x0b"):
        for chunks in ([head], [head[:-1], head[-1:]]):
            assembler = Assembler(10)
            for chunk in chunks[:-1]:
                assembler.feed(chunk)
            with pytest.raises(GRPCError) as error:
                assembler.feed(chunks[-1])
            assert error.value.status is Status.RESOURCE_EXHAUSTED
            assert error.value.message == "grpc: received message larger than max (11 vs. 10)"


def test_a_false_length_reserves_nothing() -> None:
    assembler = Assembler(1 << 30)
    tracemalloc.start()
    try:
        assembler.feed(b"\0\x3f\xff\xff\xff" + b"x")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_unknown_flags_are_refused() -> None:
    with pytest.raises(GRPCError) as error:
        Assembler().feed(b"\x02\0\0\0\0")
    assert error.value.status is Status.INTERNAL


# --- compression


@given(st.binary(max_size=300), st.sampled_from(messages.ENCODINGS))
def test_compression_comes_back(content: bytes, encoding: bytes) -> None:
    packed = messages.compress(content, encoding)
    assert messages.decompress(packed, encoding) == content
    assert messages.message_of(frame(packed, True), encoding) == content


def test_the_containers_are_those_that_other_peers_use() -> None:
    assert gzip.decompress(messages.compress(b"text", b"gzip")) == b"text"
    assert zlib.decompress(messages.compress(b"text", b"deflate")) == b"text"
    assert messages.decompress(gzip.compress(b"one") + gzip.compress(b"two"), b"gzip") == b"onetwo"


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_a_bomb_is_given_up_at_the_limit(encoding: bytes) -> None:
    bomb = messages.compress(bytes(50_000_000), encoding)
    tracemalloc.start()
    try:
        with pytest.raises(GRPCError) as error:
            messages.decompress(bomb, encoding, 100_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert error.value.status is Status.RESOURCE_EXHAUSTED
    assert error.value.message == "grpc: received message after decompression larger than max 100000"


def test_a_bomb_of_many_members_is_given_up_at_the_limit() -> None:
    with pytest.raises(GRPCError) as error:
        messages.decompress(gzip.compress(bytes(60)) * 2, b"gzip", 100)
    assert error.value.status is Status.RESOURCE_EXHAUSTED
    assert messages.decompress(gzip.compress(bytes(50)) * 2, b"gzip", 100) == bytes(100)


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_damaged_data_is_an_error(encoding: bytes) -> None:
    packed = messages.compress(b"some text that is long enough", encoding)
    for data in (b"", b"garbage", packed[:-1], packed[:5], packed + b"x"):
        with pytest.raises(GRPCError) as error:
            messages.decompress(data, encoding)
        assert error.value.status is Status.INTERNAL


def test_the_flag_without_an_encoding_is_an_error() -> None:
    assert messages.message_of(frame(b"plain"), None) == b"plain"
    assert messages.message_of(frame(b"plain"), b"gzip") == b"plain"
    with pytest.raises(GRPCError) as error:
        messages.message_of(frame(b"x", True), None)
    assert error.value.status is Status.INTERNAL


def test_encodings_are_checked() -> None:
    assert messages.check_encoding(None) is None
    assert messages.check_encoding(b"identity") is None
    assert messages.check_encoding(b"gzip") == b"gzip"
    with pytest.raises(GRPCError) as error:
        messages.check_encoding(b"snappy")
    assert error.value.status is Status.UNIMPLEMENTED
    assert error.value.message == 'grpc: Decompressor is not installed for grpc-encoding "snappy"'


@pytest.mark.parametrize(
    ("accepted", "wanted", "chosen"),
    [
        (b"identity, deflate,gzip", b"gzip", b"gzip"),
        (b"identity", b"gzip", None),
        (None, b"gzip", None),
        (b"gzip", None, None),
        (b"gzip", b"identity", None),
        (b"gzipped", b"gzip", None),
    ],
)
def test_the_answer_uses_what_the_peer_accepts(
    accepted: bytes | None, wanted: bytes | None, chosen: bytes | None
) -> None:
    assert messages.choose_encoding(accepted, wanted) == chosen
