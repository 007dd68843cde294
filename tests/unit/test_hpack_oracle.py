"""HPACK against the `hpack` package, both ways, and against arbitrary bytes."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.transport import _huffman
from meshnode.transport.hpack import NO_DYNAMIC_TABLE, Decoder, HeaderListTooLarge, HpackError, encode

ROOM = 1 << 20

common_names = st.sampled_from(
    [
        b":path",
        b":authority",
        b":status",
        b"content-type",
        b"grpc-timeout",
        b"traceparent",
        b"x-a",
        b"authorization",
    ]
)
names = st.one_of(common_names, st.binary(min_size=1, max_size=40))
values = st.one_of(st.sampled_from([b"", b"200", b"application/grpc", b"a", b"b"]), st.binary(max_size=150))
pairs = st.tuples(names, values)
lists = st.lists(pairs, max_size=12)

# One step of a connection: a header list (with or without Huffman), or a change of the oracle's table size.
steps = st.lists(st.one_of(st.tuples(lists, st.booleans()), st.integers(0, 4096)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_we_read_what_the_oracle_writes(history: list[tuple[list[tuple[bytes, bytes]], bool] | int]) -> None:
    oracle, decoder = hpack.Encoder(), Decoder()
    for step in history:
        if isinstance(step, int):
            if (
                step != oracle.header_table_size
            ):  # setting the same size again makes the oracle forget to say so
                oracle.header_table_size = step
        else:
            headers, huffman = step
            assert decoder.decode(oracle.encode(headers, huffman=huffman), ROOM) == headers
            assert decoder.table_size == oracle.header_table._current_size


@settings(max_examples=150, deadline=None)
@given(st.lists(lists, max_size=6), st.integers(0, 4096))
def test_the_oracle_reads_what_we_write(history: list[list[tuple[bytes, bytes]]], table_size: int) -> None:
    oracle = hpack.Decoder()
    oracle.max_allowed_table_size = table_size
    for number, headers in enumerate(history):
        block = (b"" if number else NO_DYNAMIC_TABLE) + encode(headers)
        assert [(bytes(k), bytes(v)) for k, v in oracle.decode(block, raw=True)] == headers


def verdict_of_oracle(oracle: hpack.Decoder, block: bytes) -> list[tuple[bytes, bytes]] | None:
    try:
        return [(bytes(k), bytes(v)) for k, v in oracle.decode(block, raw=True)]
    except hpack.HPACKError:
        return None


def ours(decoder: Decoder, block: bytes) -> list[tuple[bytes, bytes]] | None:
    try:
        return decoder.decode(block, ROOM)
    except HpackError:
        return None


fragments = st.one_of(
    st.binary(max_size=12),
    st.builds(lambda headers: hpack.Encoder().encode(headers), lists),
    st.sampled_from(
        [b"\x82", b"\xbe", b"\xbf", b"\x40\x01a\x01b", b"\x20", b"\x3f\xe1\x1f", b"\x00\x01a\x81\x1f"]
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(fragments, max_size=6).map(b"".join))
def test_arbitrary_bytes_give_a_list_or_an_error(block: bytes) -> None:
    mine = ours(Decoder(), block)
    # We accept nothing that the oracle refuses; it reads some blocks that we refuse (integers of any length).
    if mine is not None:
        assert mine == verdict_of_oracle(hpack.Decoder(), block)


@settings(max_examples=150, deadline=None)
@given(st.lists(fragments, min_size=1, max_size=8))
def test_a_connection_of_arbitrary_blocks_stays_in_step(blocks: list[bytes]) -> None:
    oracle, decoder = hpack.Decoder(), Decoder()
    for block in blocks:
        mine = ours(decoder, block)
        if mine is None:
            return
        assert mine == verdict_of_oracle(oracle, block)
        assert decoder.table_size == oracle.header_table._current_size


@settings(max_examples=150, deadline=None)
@given(lists, st.integers(0, 2000))
def test_the_limit_is_exact(headers: list[tuple[bytes, bytes]], limit: int) -> None:
    size = sum(len(name) + len(value) + 32 for name, value in headers)
    block = hpack.Encoder().encode(headers)
    if size > limit:
        with pytest.raises(HeaderListTooLarge):
            Decoder().decode(block, limit)
    else:
        assert Decoder().decode(block, limit) == headers


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_huffman_agrees_with_the_oracle(text: bytes) -> None:
    coder = hpack.huffman.HuffmanEncoder(
        hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH
    )
    assert _huffman.decode(coder.encode(text)) == text


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=30))
def test_huffman_refuses_what_the_oracle_refuses(data: bytes) -> None:
    from hpack.huffman_table import decode_huffman

    try:
        expected = decode_huffman(data)
    except hpack.HPACKDecodingError:
        with pytest.raises(_huffman.HuffmanError):
            _huffman.decode(data)
    else:
        assert _huffman.decode(data) == expected
