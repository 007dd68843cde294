"""Flags: daprd's syntax, refusals that say why, suggestions near a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.cli._errors import UsageProblem
from meshnode.cli._flags import Flag, FlagTable, Kind
from meshnode.cli._nodeflags import NODE_FLAGS, NODE_TABLE, REFUSED_FLAGS
from meshnode.cli._runflags import RUN_TABLE
from meshnode.config.quantity import parse_quantity

TABLE = FlagTable(
    "tool verb",
    (
        Flag("name", Kind.TEXT, "", short="n"),
        Flag("switch", Kind.BOOL, ""),
        Flag("path", Kind.PATHS, "", aliases=("old-path",)),
        Flag("level", Kind.TEXT, "", choices=("debug", "info")),
        Flag("gone", Kind.TEXT, "", refused="it is gone", harmless=("no",)),
    ),
)


@pytest.mark.parametrize(
    ("args", "values", "rest"),
    [
        ([], {}, ()),
        (["--name", "x"], {"name": "x"}, ()),
        (["--name=x=y"], {"name": "x=y"}, ()),
        (["--name="], {"name": ""}, ()),
        (["-name", "x"], {"name": "x"}, ()),
        (["-n", "x"], {"name": "x"}, ()),
        (["--name", "x", "--name", "y"], {"name": "y"}, ()),
        (["--name", "--switch"], {"name": "--switch"}, ()),
        (["--switch", "cmd"], {"switch": "true"}, ("cmd",)),
        (["--switch=false"], {"switch": "false"}, ()),
        (["--path", "a,b", "--old-path=c"], {"path": ["a", "b", "c"]}, ()),
        (["--path", " a , ,b"], {"path": ["a", "b"]}, ()),
        (["--", "--name", "x"], {}, ("--name", "x")),
        (["python", "--name", "x"], {}, ("python", "--name", "x")),
        (["--gone=no", "--name", "x"], {"name": "x"}, ()),
    ],
)
def test_syntax(args: list[str], values: dict[str, object], rest: tuple[str, ...]) -> None:
    parsed = TABLE.parse(args)
    assert parsed.values == values
    assert parsed.rest == rest


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["--nmae", "x"], "unknown flag --nmae", "did you mean --name?"),
        (["--zzzzzz"], "unknown flag --zzzzzz", "see tool verb --help"),
        (["--n", "x"], "unknown flag --n", "see tool verb --help"),
        (["--name"], "--name needs a value", "see tool verb --help"),
        (["--gone", "x"], "--gone is not a flag of tool verb: it is gone", ""),
    ],
)
def test_mistakes(args: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        TABLE.parse(args)
    assert caught.value.message == message
    assert caught.value.hint == hint
    assert caught.value.code == 2


def test_a_refused_flag_is_never_suggested() -> None:
    with pytest.raises(UsageProblem) as caught:
        TABLE.parse(["--gonee", "x"])
    assert "gone?" not in caught.value.hint


def test_conversion() -> None:
    assert TABLE.convert("path", ["a", "b"]) == (Path("a"), Path("b"))
    assert TABLE.convert("path", "a,b") == (Path("a"), Path("b"))
    assert TABLE.convert("switch", "T") is True
    with pytest.raises(
        UsageProblem, match=r"^--level: 'inof' is not one of debug, info; did you mean info\?$"
    ):
        TABLE.convert("level", "inof")
    with pytest.raises(UsageProblem, match=r"^MESHNODE_SWITCH: 'maybe' is neither true nor false$"):
        TABLE.convert("switch", "maybe", "MESHNODE_SWITCH")


def test_every_refusal_is_a_sentence_that_says_why() -> None:
    for flag in REFUSED_FLAGS:
        with pytest.raises(UsageProblem) as caught:
            NODE_TABLE.parse([f"--{flag.name}=1234"])
        assert caught.value.message == f"--{flag.name} is not a flag of meshnode node: {flag.refused}"
        assert len(flag.refused.split()) >= 4


@pytest.mark.parametrize("word", ["--enable-metrics=false", "--mode=standalone", "--allowed-origins=*"])
def test_arguments_written_for_daprd_that_ask_for_nothing_are_let_through(word: str) -> None:
    assert NODE_TABLE.parse([word]).values == {}


def test_run_takes_the_http_port_that_the_node_refuses() -> None:
    assert RUN_TABLE.parse(["--dapr-http-port", "3500"]).values == {"dapr-http-port": "3500"}


def test_names_are_unique() -> None:
    words = [word for flag in NODE_FLAGS + REFUSED_FLAGS for word in (flag.name, *flag.aliases)]
    shorts = [flag.short for flag in RUN_TABLE.flags if flag.short]
    assert len(words) == len(set(words))
    assert len(shorts) == len(set(shorts))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4Mi", 4 << 20),
        ("16Ki", 16384),
        ("1500k", 1_500_000),
        ("0.5Gi", 1 << 29),
        ("42", 42),
        ("+5", 5),
        ("-1", -1),
    ],
)
def test_quantity(text: str, size: int) -> None:
    assert parse_quantity(text) == size


@pytest.mark.parametrize("text", ["", "Mi", "4mb", "4 Mi", "1.5", "four", "4MiMi", "inf", "1e3"])
def test_quantity_mistakes(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|bytes"):
        parse_quantity(text)


@given(st.text(max_size=12))
def test_quantity_never_fails_otherwise(text: str) -> None:
    try:
        parse_quantity(text)
    except ValueError:
        pass
