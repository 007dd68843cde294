"""CEL: trips of circuit breakers and expressions over events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.config.cel import COUNTS, compile_program, compile_trip


def counts(**given: int) -> Mapping[str, int]:
    return {**dict.fromkeys(COUNTS, 0), **given}


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("consecutiveFailures > 5", counts(consecutiveFailures=5), False),
        ("consecutiveFailures > 5", counts(consecutiveFailures=6), True),
        ("requests >= 10 && totalFailures * 2 > requests", counts(requests=10, totalFailures=6), True),
        ("requests >= 10 && totalFailures * 2 > requests", counts(requests=10, totalFailures=5), False),
        ("double(totalFailures) / double(requests) > 0.3", counts(requests=10, totalFailures=4), True),
        ("totalFailures / requests >= 1", counts(), False),
        ("totalFailures / requests >= 1", counts(requests=2, totalFailures=2), True),
        ("!(totalSuccesses > 0) || consecutiveSuccesses == 0", counts(), True),
        ("[requests, totalFailures].exists(n, n > 3)", counts(totalFailures=4), True),
        ("requests > 2 ? totalFailures > 1 : false", counts(requests=3, totalFailures=2), True),
        ("true", counts(), True),
        ("requests in [3, 4]", counts(requests=4), True),
    ],
)
def test_trips(text: str, values: Mapping[str, int], expected: bool) -> None:
    assert compile_trip(text)(values) is expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a CEL expression"),
        ("consecutiveFailures >", "column 22: mismatched input"),
        ("consecutiveFailures > > 5", "column 23"),
        ("consecutiveFailure > 5", 'unknown name consecutiveFailure; did you mean "consecutiveFailures"?'),
        ("requests > 1000 && failures > 5", "unknown name failures"),
        ("requests", "gives 1, not true or false"),
        ("'yes'", "gives 'yes', not true or false"),
        ("tripped(requests)", "Undefined variable or function: 'tripped'"),
        ("[1].exists(n, n > failures)", "failures"),
        ("requests > 1 ||\n  nonsense == 2", "unknown name nonsense"),
        ("requests == " + "1 + " * 2000 + "1", "more than 4096 characters"),
    ],
)
def test_what_is_no_trip(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        compile_trip(text)
    assert said in str(caught.value)


@given(
    st.fixed_dictionaries({name: st.integers(0, 2**32 - 1) for name in COUNTS}),
    st.sampled_from(COUNTS),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.integers(0, 2**32 - 1),
)
def test_comparisons_are_those_of_numbers(
    values: Mapping[str, int], name: str, operator: str, bound: int
) -> None:
    expected = eval(f"{values[name]} {operator} {bound}")
    assert compile_trip(f"{name} {operator} {bound}")(values) is expected


EVENT = {"type": "order.v2", "source": "shop", "data": {"total": 120.5, "items": ["a", "b"], "vip": True}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('event.type == "order.v2"', True),
        ('event.type.startsWith("order.") && event.data.total > 100', True),
        ("has(event.data.vip) && event.data.vip && !has(event.data.coupon)", True),
        ('"b" in event.data.items && size(event.data.items) == 2', True),
        ('event.source.matches("^sh.p$")', True),
        ('event["data"]["total"] < 100.0', False),
        ("event.data.items[1]", "b"),
    ],
)
def test_expressions_over_events(text: str, expected: object) -> None:
    assert compile_program(text).evaluate({"event": EVENT}) == expected


@pytest.mark.parametrize(
    "text",
    ["event.nope == 1", "1 / 0 == 1", "evnt.type == 'a'", "'a' + 1 == 2", "event.data.items[7] == 'x'"],
)
def test_expressions_without_a_value(text: str) -> None:
    program = compile_program(text)
    with pytest.raises(ValueError) as caught:
        program.evaluate({"event": EVENT})
    assert str(caught.value).startswith(f"{text}: ")


def test_the_engine_is_loaded_at_the_first_expression_and_without_its_command_line() -> None:
    code = (
        "import sys, meshnode.config.loader, meshnode.config.cel as cel\n"
        "assert 'cel' not in sys.modules and 'cel.cel' not in sys.modules\n"
        "assert cel.compile_trip('requests > 1')({'requests': 2})\n"
        "assert 'typer' not in sys.modules and 'prompt_toolkit' not in sys.modules\n"
        "assert sys.modules['cel.cel'].compile is cel._engine().compile\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.text("requestsconsecutive ><=&|!()+-*/.0123456789'\"[]{}?:,\\\n", max_size=40))
def test_any_text_is_a_program_or_a_sentence(text: str) -> None:
    try:
        trip = compile_trip(text)
    except ValueError:
        pass
    else:
        assert trip(counts()) in (True, False)
