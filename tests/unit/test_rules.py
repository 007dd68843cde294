"""gRPC's header rules: timeouts, messages, metadata, statuses, answers."""

from __future__ import annotations

import base64
import math

import pytest
from grpclib.const import Status
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from meshnode.transport import rules
from meshnode.transport.hpack import Decoder, HeaderBlock

# --- timeouts


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"3S", 3.0),
        (b"250m", 0.25),
        (b"500000u", 0.5),
        (b"100000000n"[1:], 0.0),
        (b"99999999n", 0.099999999),
        (b"0S", 0.0),
        (b"00000001S", 1.0),
    ],
)
def test_timeouts_are_read(value: bytes, seconds: float) -> None:
    assert rules.parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [b"", b"S", b"1", b"1s", b"1h", b"-1S", b"+1S", b"1.5S", b" 1S", b"1S ", b"123456789n", b"1SS", b"\xb2S"],
)
def test_malformed_timeouts_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="grpc-timeout"):
        rules.parse_timeout(value)


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        (0, b"0u"),
        (-1, b"0u"),
        (1e-9, b"1u"),
        (0.05, b"50000u"),
        (0.1, b"100000u"),
        (30, b"30000000u"),
        (98.999, b"98999000u"),
        (99, b"99000m"),
        (100, b"100000m"),
        (math.nextafter(1e5, 0), b"100000S"),
        (1e5, b"100000S"),
        (1e8, b"1666667M"),
        (1e20, b"99999999H"),
        (math.inf, b"99999999H"),
    ],
)
def test_timeouts_are_written_in_the_finest_unit_that_fits(seconds: float, value: bytes) -> None:
    assert rules.format_timeout(seconds) == value


@given(st.floats(min_value=0, max_value=3.5e11))
def test_a_written_timeout_is_never_short_and_barely_long(seconds: float) -> None:
    value = rules.format_timeout(seconds)
    assert len(value) <= 9
    back = rules.parse_timeout(value)
    # Never more than a microsecond or a hundred thousandth longer.
    assert seconds * (1 - 1e-12) <= back <= seconds * (1 + 1.1e-5) + 1e-6


# --- grpc-message


def test_messages_are_percent_encoded() -> None:
    assert rules.encode_message("plain ~ text") == b"plain ~ text"
    assert rules.encode_message("50% of\ncafé") == b"50%25 of%0Acaf%C3%A9"


@given(st.text())
def test_messages_come_back(text: str) -> None:
    encoded = rules.encode_message(text)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert rules.decode_message(encoded) == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"100%", "100%"),
        (b"%zz%4", "%zz%4"),
        (b"%e2%98%83", "☃"),
        (b"%E2%98", "�"),
        (b"\xc3\xa9", "é"),
        (b"%25%32%35", "%25"),
    ],
)
def test_messages_are_read_leniently(value: bytes, text: str) -> None:
    assert rules.decode_message(value) == text


@given(st.binary(max_size=60))
def test_any_bytes_can_be_read_as_a_message(value: bytes) -> None:
    assert isinstance(rules.decode_message(value), str)


# --- metadata


@given(st.binary(max_size=60))
def test_binary_values_are_read_with_and_without_padding(value: bytes) -> None:
    assert b"=" not in rules.encode_bin(value)
    assert rules.decode_bin(rules.encode_bin(value)) == value
    assert rules.decode_bin(base64.b64encode(value)) == value


@pytest.mark.parametrize("value", [b"A", b"AAAAA", b"A=AA", b"!!!!", b"AA=A", b"A A A A"])
def test_binary_values_that_are_not_base64_are_refused(value: bytes) -> None:
    with pytest.raises(rules.MetadataError):
        rules.decode_bin(value)


def test_metadata_leaves_out_what_belongs_to_the_protocol() -> None:
    metadata = rules.metadata_of(
        [
            (b":method", b"POST"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"user-agent", b"x"),
            (b"grpc-timeout", b"1S"),
            (b"grpc-encoding", b"gzip"),
            (b"grpc-status-details-bin", b"AAAA"),
            (b"dapr-app-id", b"orders"),
            (b"grpc-trace-bin", b"AAAA"),
            (b"dapr-app-id", b"again"),
        ]
    )
    assert list(metadata.items()) == [
        ("dapr-app-id", "orders"),
        ("grpc-trace-bin", b"\0\0\0"),
        ("dapr-app-id", "again"),
    ]


def test_joined_binary_values_are_taken_apart() -> None:
    assert rules.metadata_of([(b"k-bin", b"AAE,AAI=, AAM")]).getall("k-bin") == [b"\0\1", b"\0\2", b"\0\3"]


def test_values_that_break_the_protocol_are_still_shown() -> None:
    metadata = rules.metadata_of([(b"name", "café".encode()), (b"raw", b"\xff")])
    assert metadata["name"] == "café"
    assert metadata["raw"] == "\udcff"


keys = st.from_regex(r"[0-9a-z_.\-]{1,12}", fullmatch=True).filter(
    lambda key: (
        not key.startswith("grpc-") and key not in ("te", "content-type", "user-agent", "content-length")
    )
)
plain_items = st.tuples(
    keys.filter(lambda key: not key.endswith("-bin")),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20),
)
binary_items = st.tuples(keys.map("{}-bin".format), st.binary(max_size=20))


@given(st.lists(st.one_of(plain_items, binary_items), max_size=8))
def test_metadata_survives_the_wire(items: list[tuple[str, str | bytes]]) -> None:
    pairs = rules.pairs_of(items)
    assert list(rules.metadata_of(pairs).items()) == items
    assert rules.pairs_of(MultiDict(items)) == pairs


@pytest.mark.parametrize(
    "item",
    [
        ("", "x"),
        ("Upper", "x"),
        ("sp ace", "x"),
        ("ключ", "x"),
        (":path", "x"),
        ("grpc-status", "0"),
        ("grpc-anything", "x"),
        ("te", "x"),
        ("user-agent", "x"),
        ("content-type", "x"),
        ("key", "line\nbreak"),
        ("key", "café"),
        ("key", b"bytes"),
        ("key-bin", "text"),
        ("key\n", "x"),
        ("key", "x\n"),
    ],
)
def test_metadata_that_grpc_does_not_allow_is_refused(item: tuple[str, str | bytes]) -> None:
    with pytest.raises(rules.MetadataError, match="metadata"):
        rules.pairs_of([item])


# --- requests and answers


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc; charset=utf-8", True),
        (b"Application/GRPC", True),
        (b"application/grpc-web", False),
        (b"application/json", False),
        (b"", False),
        (None, False),
    ],
)
def test_content_types(value: bytes | None, verdict: bool) -> None:
    assert rules.is_grpc(value) is verdict


def request(**changes: bytes) -> HeaderBlock:
    fields = {":method": b"POST", ":path": b"/s/M", "content-type": b"application/grpc"}
    fields.update({key.replace("_", ":"): value for key, value in changes.items()})
    return HeaderBlock((key.encode(), value) for key, value in fields.items())


def test_requests_that_are_not_grpc_are_answered_in_http() -> None:
    assert rules.refusal(request()) is None
    headers, body = rules.refusal(request(_method=b"GET"))
    assert headers[0] == (b":status", b"405")
    assert b"POST" in body
    headers, body = rules.refusal(HeaderBlock([(b":method", b"GET"), (b":path", b"/")]))
    assert headers[0] == (b":status", b"415")
    assert b"gRPC" in body
    assert rules.refusal(HeaderBlock([(b":method", b"HEAD"), (b":path", b"/")]))[1] == b""


@pytest.mark.parametrize("status", Status)
def test_statuses_come_back(status: Status) -> None:
    ended = rules.result_of(HeaderBlock(rules.trailers(status, "why: 5%", b"\0details")))
    if status is Status.OK:
        assert ended is None
    else:
        assert (ended.status, ended.message, ended.details) == (status, "why: 5%", b"\0details")


@pytest.mark.parametrize("value", [b"17", b"-1", b"00", b"", b"x", b"99999"])
def test_unheard_of_statuses_are_unknown(value: bytes) -> None:
    assert rules.result_of(HeaderBlock([(b"grpc-status", value)])).status is Status.UNKNOWN


def test_a_status_with_broken_details_keeps_its_message() -> None:
    block = HeaderBlock(
        [(b"grpc-status", b"5"), (b"grpc-message", b"gone"), (b"grpc-status-details-bin", b"!")]
    )
    ended = rules.result_of(block)
    assert (ended.status, ended.message, ended.details) == (Status.NOT_FOUND, "gone", None)


@pytest.mark.parametrize(
    ("http", "status"),
    [
        (b"400", Status.INTERNAL),
        (b"401", Status.UNAUTHENTICATED),
        (b"403", Status.PERMISSION_DENIED),
        (b"404", Status.UNIMPLEMENTED),
        (b"429", Status.UNAVAILABLE),
        (b"500", Status.UNKNOWN),
        (b"502", Status.UNAVAILABLE),
        (b"503", Status.UNAVAILABLE),
        (b"504", Status.UNAVAILABLE),
        (b"200", Status.UNKNOWN),
    ],
)
def test_answers_without_a_grpc_status_are_judged_by_http(http: bytes, status: Status) -> None:
    assert rules.result_of(HeaderBlock([(b":status", http)])).status is status


def test_resets_become_statuses() -> None:
    assert rules.status_of_reset(0x7) is Status.UNAVAILABLE
    assert rules.status_of_reset(0x8) is Status.CANCELLED
    assert rules.status_of_reset(0xB) is Status.RESOURCE_EXHAUSTED
    assert rules.status_of_reset(0xC) is Status.PERMISSION_DENIED
    assert rules.status_of_reset(0x1) is Status.INTERNAL
    assert rules.status_of_reset(0xFFFF) is Status.UNKNOWN


def test_prepared_blocks_say_what_their_pairs_say() -> None:
    decoder = Decoder()
    assert decoder.decode(rules.RESPONSE_HEADERS_BLOCK, 1000) == list(rules.RESPONSE_HEADERS)
    assert decoder.decode(rules.OK_TRAILERS_BLOCK, 1000) == list(rules.OK_TRAILERS)


def test_trailers_only_is_one_section() -> None:
    assert rules.trailers_only(Status.UNIMPLEMENTED, "no", metadata=[(b"a", b"b")]) == [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"12"),
        (b"grpc-message", b"no"),
        (b"a", b"b"),
    ]
