"""HTTP/2's rules for header sections."""

from __future__ import annotations

import pytest

from meshnode.transport import fields
from meshnode.transport.hpack import HeaderBlock

PSEUDO = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/M"), (b":authority", b"a")]


def test_a_request_may_have_any_regular_fields() -> None:
    block = HeaderBlock([*PSEUDO, (b"te", b"trailers"), (b"x-any", b" padded "), (b"x-any", b"\xff\t")])
    fields.check_request(block)
    assert block.verdict is fields.check_request
    fields.check_request(block)


def test_authority_is_optional() -> None:
    fields.check_request(HeaderBlock(PSEUDO[:3]))


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        PSEUDO[1:],
        PSEUDO[:2],
        [PSEUDO[0], *PSEUDO],
        [*PSEUDO, (b":status", b"200")],
        [*PSEUDO, (b":unknown", b"x")],
        [(b"a", b"b"), *PSEUDO],
        [*PSEUDO[:3], (b"a", b"b"), PSEUDO[3]],
        [*PSEUDO[:2], (b":path", b"")],
    ],
)
def test_pseudo_headers_of_requests(pairs: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(fields.MalformedHeaders):
        fields.check_request(HeaderBlock(pairs))


@pytest.mark.parametrize(
    "pair",
    [
        (b"Upper", b"x"),
        (b"", b"x"),
        (b"sp ace", b"x"),
        (b"colon:inside", b"x"),
        (b"n\xc3\xa9", b"x"),
        (b"name\n", b"x"),
        (b"connection", b"close"),
        (b"proxy-connection", b"x"),
        (b"keep-alive", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"te", b"trailers, deflate"),
        (b"te", b""),
        (b"x", b"a\nb"),
        (b"x", b"a\r"),
        (b"x", b"\0"),
    ],
)
def test_fields_that_no_section_may_have(pair: tuple[bytes, bytes]) -> None:
    fields.check_request(
        HeaderBlock([*PSEUDO, (b"x", b"y")])
    )  # a name found good before proves nothing for values
    for check, start in [
        (fields.check_request, PSEUDO),
        (fields.check_response, [(b":status", b"200")]),
        (fields.check_trailers, []),
    ]:
        for _ in range(2):
            with pytest.raises(fields.MalformedHeaders):
                check(HeaderBlock([*start, pair]))


def test_responses_have_one_status() -> None:
    fields.check_response(HeaderBlock([(b":status", b"200"), (b"a", b"b")]))
    for pairs in (
        [],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":status", b"20")],
        [(b":status", b"2xx")],
        [(b":path", b"/")],
        [(b"a", b"b"), (b":status", b"200")],
    ):
        with pytest.raises(fields.MalformedHeaders):
            fields.check_response(HeaderBlock(pairs))


def test_trailers_have_no_pseudo_headers() -> None:
    fields.check_trailers(HeaderBlock([(b"grpc-status", b"0")]))
    with pytest.raises(fields.MalformedHeaders):
        fields.check_trailers(HeaderBlock([(b":status", b"200")]))


def test_a_verdict_holds_for_one_role_only() -> None:
    block = HeaderBlock(PSEUDO)
    fields.check_request(block)
    with pytest.raises(fields.MalformedHeaders):
        fields.check_trailers(block)


def test_content_length() -> None:
    assert fields.content_length(HeaderBlock([(b"content-length", b"12")])) == 12
    assert fields.content_length(HeaderBlock()) is None
    for value in (b"", b"-1", b"1 ", b"x", b"9" * 19):
        with pytest.raises(fields.MalformedHeaders):
            fields.content_length(HeaderBlock([(b"content-length", value)]))
