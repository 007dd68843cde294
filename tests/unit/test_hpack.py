"""HPACK: the examples of the RFC, rules for decoders, hostile blocks. Properties: test_hpack_oracle.py."""

from __future__ import annotations

import pytest

from meshnode.transport.hpack import (
    NO_DYNAMIC_TABLE,
    Decoder,
    HeaderBlock,
    HeaderListTooLarge,
    HpackError,
    encode,
    header_list_size,
)

ROOM = 1 << 20

# RFC 7541, appendix C: table size, blocks of one connection with their meaning, bytes in the table afterwards
FIRST = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
SECOND = [*FIRST, (b"cache-control", b"no-cache")]
THIRD = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]
ANSWER_1 = [
    (b":status", b"302"),
    (b"cache-control", b"private"),
    (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    (b"location", b"https://www.example.com"),
]
ANSWER_2 = [(b":status", b"307"), *ANSWER_1[1:]]
ANSWER_3 = [
    (b":status", b"200"),
    (b"cache-control", b"private"),
    (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
    (b"location", b"https://www.example.com"),
    (b"content-encoding", b"gzip"),
    (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
]
APPENDIX_C = {
    "C.2.1 literal with indexing": (
        4096,
        [("400a637573746f6d2d6b65790d637573746f6d2d686561646572", [(b"custom-key", b"custom-header")])],
        55,
    ),
    "C.2.2 literal without indexing": (
        4096,
        [("040c2f73616d706c652f70617468", [(b":path", b"/sample/path")])],
        0,
    ),
    "C.2.3 never indexed": (4096, [("100870617373776f726406736563726574", [(b"password", b"secret")])], 0),
    "C.2.4 indexed": (4096, [("82", [(b":method", b"GET")])], 0),
    "C.3 requests": (
        4096,
        [
            ("828684410f7777772e6578616d706c652e636f6d", FIRST),
            ("828684be58086e6f2d6361636865", SECOND),
            ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", THIRD),
        ],
        164,
    ),
    "C.4 requests, Huffman": (
        4096,
        [
            ("828684418cf1e3c2e5f23a6ba0ab90f4ff", FIRST),
            ("828684be5886a8eb10649cbf", SECOND),
            ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", THIRD),
        ],
        164,
    ),
    "C.5 responses, evictions": (
        256,
        [
            (
                "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e17"
                "68747470733a2f2f7777772e6578616d706c652e636f6d",
                ANSWER_1,
            ),
            ("4803333037c1c0bf", ANSWER_2),
            (
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d41"
                "53444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b207665727369"
                "6f6e3d31",
                ANSWER_3,
            ),
        ],
        215,
    ),
    "C.6 responses, Huffman, evictions": (
        256,
        [
            (
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97"
                "c8e9ae82ae43d3",
                ANSWER_1,
            ),
            ("4883640effc1c0bf", ANSWER_2),
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd"
                "5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                ANSWER_3,
            ),
        ],
        215,
    ),
}


@pytest.mark.parametrize("name", APPENDIX_C)
def test_the_examples_of_the_rfc(name: str) -> None:
    table_size, blocks, table_size_after = APPENDIX_C[name]
    decoder = Decoder(table_size)
    for text, expected in blocks:
        assert decoder.decode(bytes.fromhex(text), ROOM) == expected
    assert decoder.table_size == table_size_after


def test_an_unchanged_table_gives_back_the_same_object() -> None:
    decoder = Decoder()
    block = encode([(b":method", b"POST"), (b"x-kind", b"one")])
    first = decoder.decode(block, ROOM)
    first.cache = "derived"
    assert decoder.decode(block, ROOM) is first


def test_a_changed_table_forgets_the_blocks_that_were_read_with_it() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b", ROOM)
    assert decoder.decode(b"\xbe", ROOM) == [(b"a", b"b")]
    decoder.decode(b"\x40\x01c\x01d", ROOM)
    assert decoder.decode(b"\xbe", ROOM) == [(b"c", b"d")]


def test_an_emptied_table_forgets_the_blocks_that_were_read_with_it() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b", ROOM)
    decoder.decode(b"\xbe", ROOM)
    decoder.decode(NO_DYNAMIC_TABLE, ROOM)
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe", ROOM)


def test_a_block_with_indexing_is_never_taken_from_the_cache() -> None:
    decoder = Decoder()
    block = b"\x40\x01a\x01b"
    decoder.decode(block, ROOM)
    decoder.decode(block, ROOM)
    assert decoder.table_size == 2 * 34


def test_an_entry_larger_than_the_table_empties_it() -> None:
    decoder = Decoder(64)
    decoder.decode(b"\x40\x01a\x01b", ROOM)
    assert decoder.decode(b"\x40\x01a\x28" + b"v" * 40, ROOM) == [(b"a", b"v" * 40)]
    assert decoder.table_size == 0


def test_a_name_may_come_from_an_entry_that_the_new_one_evicts() -> None:
    decoder = Decoder(64)
    decoder.decode(b"\x40\x04name\x01b", ROOM)
    assert decoder.decode(b"\x7e\x1a" + b"v" * 26, ROOM) == [(b"name", b"v" * 26)]
    assert decoder.decode(b"\xbe", ROOM) == [(b"name", b"v" * 26)]
    assert decoder.table_size == 62


def test_two_size_updates_may_lead_a_block() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b", ROOM)
    assert decoder.decode(b"\x20\x3f\xe1\x1f\x82", ROOM) == [(b":method", b"GET")]
    assert decoder.table_size == 0


HOSTILE = {
    "index 0": "80",
    "index beyond the static table": "be",
    "index beyond the dynamic table": "400161016281ff0001",
    "huge index": "ffffffffff0f",
    "endless integer": "ff" + "80" * 12 + "01",
    "integer with nothing after its prefix": "ff",
    "name index beyond the table": "7f2001",
    "literal without a value": "4001",
    "literal without a name": "40",
    "string runs past the end": "4001610a62",
    "string of 2^35 bytes": "40016" + "17fffffffff0f",
    "Huffman string runs past the end": "400161ff",
    "size update after a field": "8220",
    "size update over the setting": "3fe21f",
    "huge size update": "3fffffffff0f",
    "Huffman padding of zeros": "0001618100",
    "Huffman padding of a whole byte": "00016182" + "1fff",
    "Huffman padding that is no prefix of EOS": "00016181" + "18",
    "Huffman EOS in the string": "00016184" + "ffffffff",
    "Huffman EOS in the middle": "00016186" + "1fffffffffff",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_blocks_are_refused(name: str) -> None:
    with pytest.raises(HpackError):
        Decoder().decode(bytes.fromhex(HOSTILE[name]), ROOM)


def test_huffman_padding_of_up_to_seven_ones_is_accepted() -> None:
    assert Decoder().decode(bytes.fromhex("000161811f"), ROOM) == [(b"a", b"a")]  # 00011 and three ones
    assert Decoder().decode(bytes.fromhex("00016180"), ROOM) == [(b"a", b"")]


def test_a_list_over_the_limit_is_refused_and_the_table_stays_in_step() -> None:
    decoder = Decoder()
    with pytest.raises(HeaderListTooLarge) as refused:
        decoder.decode(b"\x40\x01a\x01b" + b"\xbe" * 9, 339)
    assert (refused.value.size, refused.value.limit) == (340, 339)
    assert decoder.decode(b"\xbe", 34) == [(b"a", b"b")]


def test_a_remembered_block_is_held_against_the_limit_too() -> None:
    decoder = Decoder()
    block = encode([(b"a", b"b" * 20)])
    assert decoder.decode(block, 53)
    with pytest.raises(HeaderListTooLarge):
        decoder.decode(block, 52)


def test_one_byte_fields_cannot_amplify_past_the_limit() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x7f\x80\x1e" + b"v" * 3967, ROOM)  # one entry of 4000
    with pytest.raises(HeaderListTooLarge):
        decoder.decode(b"\xbe" * 100, 16384)


def test_the_cache_has_a_ceiling() -> None:
    decoder = Decoder()
    kept = [decoder.decode(encode([(b"n", b"%d" % number)]), ROOM) for number in range(1000)]
    again = [decoder.decode(encode([(b"n", b"%d" % number)]), ROOM) for number in range(1000)]
    assert kept == again
    assert sum(a is b for a, b in zip(kept, again, strict=True)) < 200


def test_get_gives_the_last_of_repeated_values() -> None:
    block = HeaderBlock([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert block.get(b"a") == b"3"
    assert block.get(b"c") is None
    assert block.get(b"c", b"x") == b"x"
    assert block.map == {b"a": b"3", b"b": b"2"}
    assert block.cache is None


def test_encoding_uses_the_static_table() -> None:
    assert encode([(b":method", b"POST"), (b":status", b"200")]) == b"\x83\x88"
    assert encode([(b":path", b"/x")]) == b"\x04\x02/x"
    assert encode([(b"content-type", b"a")]) == b"\x0f\x10\x01a"
    assert encode([(b"x-y", b"z")]) == b"\x00\x03x-y\x01z"


def test_secrets_are_marked_never_indexed() -> None:
    assert encode([(b"authorization", b"Bearer x")])[0] & 0xF0 == 0x10
    assert encode([(b"dapr-api-token", b"x")])[0] & 0xF0 == 0x10


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 16383, 100_000])
def test_lengths_around_the_prefix_survive(length: int) -> None:
    headers = [(b"x" * max(1, length), b"v" * length)]
    assert Decoder().decode(encode(headers), ROOM) == headers


def test_list_size_counts_32_for_each_field() -> None:
    assert header_list_size([]) == 0
    assert header_list_size([(b"ab", b"c"), (b"", b"")]) == 67
