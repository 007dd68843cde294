"""Go's durations: a table made with Go's own `time.ParseDuration`, a reference in exact arithmetic, round
trips.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from meshnode.config.durations import MILLISECONDS, SECONDS, format_duration, parse_duration

NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("+0", 0),
        ("-0", 0),
        ("0s", 0),
        ("5s", 5_000_000_000),
        ("1478s", 1_478_000_000_000),
        ("-5s", -5_000_000_000),
        ("+5s", 5_000_000_000),
        ("5.6s", 5_600_000_000),
        ("5.s", 5_000_000_000),
        (".5s", 500_000_000),
        ("1.004s", 1_004_000_000),
        ("100.00100s", 100_001_000_000),
        ("1h2m3.5s", 3_723_500_000_000),
        ("3h30m", 12_600_000_000_000),
        ("10.5s4m", 250_500_000_000),
        ("1h2m3s4ms5us6ns", 3_723_004_005_006),
        ("12µs", 12_000),
        ("12μs", 12_000),
        ("52763797000ns", 52_763_797_000),
        ("0.3333333333333333333h", 1_200_000_000_000),
        ("9007199254740993ns", 9_007_199_254_740_993),
        ("9007199254.740993ms", 9_007_199_254_740_993),
        ("9223372036854775807ns", 9_223_372_036_854_775_807),
        ("-9223372036854775808ns", -9_223_372_036_854_775_808),
        ("0.100000000000000000000h", 360_000_000_000),
        ("0.830103483285477580700h", 2_988_372_539_827),
        ("5.ns5370271935s", 5_370_271_935_000_000_005),
    ],
)
def test_as_go_reads_it(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds / 10**9


@pytest.mark.parametrize(
    "text",
    [
        "", "3", "-", "+", "s", ".", "-.", ".s", "+.s", "1d", "5 s", " 5s", "5s ", "--5s", "5S", "1_0s", "٣s",
        "5s1", "0x5s", "9223372036854775808ns", "9223372036854775.808us", "9223372036854ms775us808ns",
        "-9223372036854775809ns", "3000000h", "1" * 400 + "h",
    ],
)  # fmt: skip
def test_what_go_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="5s, 200ms or 1m30s"):
        parse_duration(text)


def test_the_message_names_the_missing_unit_and_repeats_little() -> None:
    with pytest.raises(ValueError, match='"30" is not a duration; a unit is missing'):
        parse_duration("30")
    with pytest.raises(ValueError) as caught:
        parse_duration("x" * 10_000)
    assert len(str(caught.value)) < 200


def test_bare_numbers_count_what_the_caller_says() -> None:
    assert parse_duration("1500", bare=MILLISECONDS) == 1.5
    assert parse_duration("30", bare=SECONDS) == 30.0
    assert parse_duration("-1", bare=SECONDS) == -1.0
    assert parse_duration("2m", bare=MILLISECONDS) == 120.0
    with pytest.raises(ValueError, match="too long"):
        parse_duration("9" * 500, bare=MILLISECONDS)


terms = st.tuples(
    st.integers(0, 10**6), st.text("0123456789", max_size=6), st.sampled_from(sorted(NANOSECONDS))
)


@given(st.sampled_from(["", "+", "-"]), st.lists(terms, min_size=1, max_size=6))
def test_the_sum_of_its_terms(sign: str, parts: list[tuple[int, str, str]]) -> None:
    text = sign + "".join(
        f"{whole}.{digits}{unit}" if digits else f"{whole}{unit}" for whole, digits, unit in parts
    )
    exact = Fraction(0)
    for whole, digits, unit in parts:
        exact += Fraction(f"{whole}.{digits or 0}") * NANOSECONDS[unit]
    assume(exact < 2**63)
    # Go cuts each fraction to whole nanoseconds, through a float: up to one nanosecond a term may be missing.
    found = abs(Fraction(parse_duration(text)).limit_denominator(10**9)) * 10**9
    assert abs(found - exact) <= len(parts) + exact / 2**50


@given(st.integers(-(2**52), 2**52))  # beyond it seconds, as a float, are further apart than nanoseconds
@example(4503599627370491)
def test_round_trip(nanoseconds: int) -> None:
    text = format_duration(nanoseconds / 10**9)
    assert parse_duration(text) == nanoseconds / 10**9


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (90.5, "1m30.5s"),
        (0.25, "250ms"),
        (-1.5, "-1.5s"),
        (3600, "1h"),
        (3723, "1h2m3s"),
        (2e-6, "2us"),
        (1e-9, "1ns"),
    ],
)
def test_as_it_is_written(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_sentence(text: str) -> None:
    try:
        assert isinstance(parse_duration(text), float)
    except ValueError as error:
        refused = str(error)
    else:
        refused = ""
    assert not refused or "write it like" in refused
