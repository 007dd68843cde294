"""Backoff and Go's way to print durations, against small models of their own."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.config.resiliency import Backoff as Kind
from meshnode.config.resiliency import RetryPolicy
from meshnode.resiliency._goformat import go_duration
from meshnode.resiliency.backoff import FOREVER, Backoff, BackoffSettings
from meshnode.resiliency.tables import merge


def waits(
    settings: BackoffSettings, count: int, *, seed: int = 1, elapsed: float = 0.0
) -> list[float | None]:
    backoff = Backoff(settings, random.Random(seed))
    return [backoff.next(elapsed) for _ in range(count)]


def test_three_retries_are_four_attempts() -> None:
    assert waits(BackoffSettings(duration=2.0, max_retries=3), 5) == [2.0, 2.0, 2.0, None, None]


def test_no_retries_at_all() -> None:
    assert waits(BackoffSettings(max_retries=0), 1) == [None]


def test_forever_never_ends() -> None:
    assert None not in waits(BackoffSettings(duration=0.0, max_retries=FOREVER), 10_000, elapsed=1e9)


def test_exponential_without_spread_grows_to_its_cap() -> None:
    settings = BackoffSettings(kind=Kind.EXPONENTIAL, randomization_factor=0.0, max_interval=2.0)
    assert waits(settings, 6) == [0.5, 0.75, 1.125, 1.6875, 2.0, 2.0]


def test_elapsed_time_ends_an_exponential_series_before_a_wait_that_would_pass_it() -> None:
    settings = BackoffSettings(kind=Kind.EXPONENTIAL, randomization_factor=0.0, max_elapsed=10.0)
    backoff = Backoff(settings, random.Random())
    assert backoff.next(9.0) == 0.5
    assert backoff.next(9.5) is None
    assert backoff.next(0.0) == 0.75  # a refused wait is not used up


def test_a_first_interval_above_the_cap_is_taken_once() -> None:
    settings = BackoffSettings(
        kind=Kind.EXPONENTIAL, randomization_factor=0.0, initial_interval=5.0, max_interval=1.0
    )
    assert waits(settings, 3) == [5.0, 1.0, 1.0]


@given(
    seed=st.integers(0, 2**32),
    factor=st.floats(0.0, 1.0),
    multiplier=st.floats(1.0, 10.0),
    initial=st.floats(0.001, 100.0),
    cap=st.floats(0.001, 1000.0),
    retries=st.integers(FOREVER, 30),
)
def test_exponential_follows_the_model(
    seed: int, factor: float, multiplier: float, initial: float, cap: float, retries: int
) -> None:
    settings = BackoffSettings(Kind.EXPONENTIAL, 5.0, initial, factor, multiplier, cap, 0.0, retries)
    found = waits(settings, 20, seed=seed)
    dice, middle = random.Random(seed), initial
    for number, wait in enumerate(found):
        if 0 <= retries <= number:
            assert wait is None
            continue
        low, high = middle - factor * middle, middle + factor * middle
        expected = middle if factor == 0 else low + dice.random() * (high - low)
        assert wait is not None
        assert wait == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert low * (1 - 1e-9) <= wait <= high * (1 + 1e-9)
        middle = cap if middle * multiplier >= cap else middle * multiplier


@given(st.integers(0, 2**32))
def test_same_seed_same_waits(seed: int) -> None:
    settings = BackoffSettings(kind=Kind.EXPONENTIAL)
    assert waits(settings, 10, seed=seed) == waits(settings, 10, seed=seed)


def test_a_policy_without_limit_has_no_limit_in_time_either() -> None:
    policy = RetryPolicy(Kind.EXPONENTIAL, max_interval=15.0, max_retries=-1)
    settings = BackoffSettings.from_policy(policy)
    assert (settings.max_elapsed, settings.max_interval, settings.unlimited) == (0.0, 15.0, True)
    limited = BackoffSettings.from_policy(RetryPolicy(Kind.EXPONENTIAL, max_retries=100))
    assert (limited.max_elapsed, limited.unlimited) == (900.0, False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DaprBuiltInServiceRetries", BackoffSettings(duration=1.0, max_retries=3)),
        ("DaprBuiltInActorRetries", BackoffSettings(duration=1.0, max_retries=3)),
        ("DaprBuiltInActorNotFoundRetries", BackoffSettings(duration=1.0, max_retries=5)),
    ],
)
def test_built_in_numbers(name: str, expected: BackoffSettings) -> None:
    assert merge([], "app", "").retries[name].value.backoff == expected


def test_initialization_retries_three_times_within_ten_seconds() -> None:
    settings = merge([], "app", "").retries["DaprBuiltInInitializationRetries"].value.backoff
    found = waits(settings, 4)
    assert found[3] is None
    for wait, middle in zip(found[:3], (0.5, 0.75, 1.0), strict=True):
        assert wait is not None
        assert middle * 0.5 <= wait <= middle * 1.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1e-12, "0s"),
        (5e-9, "5ns"),
        (0.00025, "250µs"),
        (0.0000015, "1.5µs"),
        (0.5, "500ms"),
        (0.612345678, "612.345678ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (2.000000001, "2.000000001s"),
        (60, "1m0s"),
        (90.5, "1m30.5s"),
        (3600, "1h0m0s"),
        (3661.25, "1h1m1.25s"),
        (-90, "-1m30s"),
        (0.9999999999, "1s"),
    ],
)
def test_durations_read_as_go_prints_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@given(st.integers(1, 10**15))
def test_printed_durations_mean_what_they_say(nanoseconds: int) -> None:
    units = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "µs": 10**3, "ns": 1}
    total, number, unit = 0.0, "", ""
    for character in go_duration(nanoseconds / 1e9) + "0":
        if character.isdigit() or character == ".":
            if unit:
                total, number, unit = total + float(number) * units[unit], "", ""
            number += character
        else:
            unit += character
    assert total == pytest.approx(nanoseconds, abs=1.0)
