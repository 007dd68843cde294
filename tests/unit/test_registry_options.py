"""Component metadata into a driver's options."""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from meshnode.config import Component, MetadataItem, Source
from meshnode.config.options import option_rows
from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import free_form, option
from meshnode.registry import load_options

SOURCE = Source("c.yaml", 1, {"port": 12, "host": 10})


class Mode(enum.Enum):
    SINGLE = "single"
    CLUSTER = "cluster"


@frozen
class Options:
    host: str = option("host", "Where it is.", aliases=("redisHost", "address"))
    port: int = option("port", "Its port.", default=6379)
    ratio: float = option("ratio", "A share.", default=0.5)
    tls: bool = option("enableTLS", "Whether to encrypt.", default=False)
    wait: timedelta = option("wait", "How long to wait.", default=timedelta(seconds=5))
    level: str = option("level", "How much.", default="low", allowed=("low", "high"))
    password: str = option("password", "Its password.", default="", secret=True)
    key: int | None = option("key", "A secret number.", default=None, secret=True)
    size: int | None = option("size", "How large.", default=None)
    mode: Mode = option("mode", "How it is used.", default=Mode.SINGLE)
    hosts: Mapping[str, Any] = option("hosts", "Who is where.", default={})
    names: tuple[str, ...] = option("names", "Which.", default=())
    checks: tuple[Mapping[str, Any], ...] = option("checks", "What to look at.", default=())
    internal: int = field(default=7)


def load(*pairs: tuple[str, str], **more: Any) -> Options:
    return load_options(Options, [("host", "h"), *pairs], SOURCE, **more)


def complaints(*pairs: tuple[str, str], **more: Any) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load_options(Options, pairs, SOURCE, **more)
    return list(caught.value.problems)


def test_defaults() -> None:
    assert load() == Options(host="h")


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("port", "1", "port", 1),
        ("PORT", " -5 ", "port", -5),
        ("port", "4Mi", "port", 4 * 1024 * 1024),
        ("port", "2k", "port", 2000),
        ("ratio", "1e-3", "ratio", 0.001),
        ("enableTLS", "true", "tls", True),
        ("enabletls", "Yes", "tls", True),
        ("enableTLS", "on", "tls", True),
        ("enableTLS", "1", "tls", True),
        ("enableTLS", "F", "tls", False),
        ("enableTLS", "off", "tls", False),
        ("wait", "1m30s", "wait", timedelta(seconds=90)),
        ("wait", "30", "wait", timedelta(seconds=30)),
        ("wait", "-1", "wait", timedelta(seconds=-1)),
        ("level", "HIGH", "level", "high"),
        ("password", "", "password", ""),
        ("size", "", "size", None),
        ("size", "3", "size", 3),
        ("port", "", "port", 6379),
        ("mode", "cluster", "mode", Mode.CLUSTER),
        ("hosts", '{"a": ["b:1"]}', "hosts", {"a": ["b:1"]}),
        ("names", "a, b,,c", "names", ("a", "b", "c")),
        ("names", '["a", "b"]', "names", ("a", "b")),
        ("checks", '[{"a": 1}, {}]', "checks", ({"a": 1}, {})),
        ("checks", "", "checks", ()),
    ],
)
def test_texts_become_what_the_annotation_says(name: str, text: str, attribute: str, value: object) -> None:
    assert getattr(load((name, text)), attribute) == value


@pytest.mark.parametrize("name", ["host", "HOST", "redisHost", "redishost", "address"])
def test_names_and_aliases_in_any_case(name: str) -> None:
    assert load_options(Options, [(name, "x")]).host == "x"


@pytest.mark.parametrize(
    ("name", "text", "message", "remedy"),
    [
        ("port", "many", 'found "many", expected a whole number', ""),
        ("port", "1.5", 'found "1.5", expected a whole number', ""),
        ("port", "1" * 30, f'found "{"1" * 30}", expected a whole number', ""),
        ("ratio", "half", 'found "half", expected a number', ""),
        ("enableTLS", "perhaps", 'found "perhaps", expected true or false', ""),
        ("wait", "soon", 'found "soon", expected a duration such as 5s, 200ms or 1m30s', ""),
        ("level", "medium", 'found "medium"', "allowed: low, high"),
        ("mode", "many", "found \"many\", expected 'many' is not a valid Mode", ""),
        ("hosts", "[1]", 'found "[1]", expected a mapping', ""),
        ("hosts", "a=b", 'found "a=b", expected a mapping', ""),
        ("checks", '["a"]', 'found "["a"]", expected a list of mappings', ""),
        ("checks", "{}", 'found "{}", expected a list of mappings', ""),
        ("key", "hush", "found the value, expected a whole number", ""),
        ("prot", "1", "unknown metadata name", 'did you mean "port"? allowed: host, port'),
    ],
)
def test_one_mistake(name: str, text: str, message: str, remedy: str) -> None:
    (problem,) = complaints(("host", "h"), (name, text))
    assert problem.message == message
    assert remedy in problem.remedy
    assert (problem.file, problem.field) == ("c.yaml", f"spec.metadata.{name}")


def test_all_of_them_are_reported_with_their_lines() -> None:
    found = complaints(("port", "x"), ("wait", "y"))
    assert [(problem.line, problem.field) for problem in found] == [
        (12, "spec.metadata.port"),
        (1, "spec.metadata.wait"),
        (10, "spec.metadata.host"),
    ]
    assert (found[-1].message, found[-1].remedy) == ("is missing", "Where it is.")


def test_a_misspelt_required_name_is_one_mistake() -> None:
    (problem,) = complaints(("hoost", "x"))
    assert (problem.field, problem.message) == ("spec.metadata.hoost", "unknown metadata name")


def test_a_name_and_its_alias_cannot_both_be_given() -> None:
    (problem,) = complaints(("host", "a"), ("redisHost", "b"))
    assert problem.message == 'means the same as "host", which is given too'


def test_an_empty_required_value() -> None:
    @frozen
    class Needs:
        count: int = option("count", "How many.")

    with pytest.raises(ConfigError, match="is empty, expected a whole number"):
        load_options(Needs, [("count", "")])
    assert load_options(Needs, {"count": 3}).count == 3


def test_reserved_names_belong_to_the_node() -> None:
    assert load(("keyPrefix", "none"), reserved={"keyPrefix"}) == load()
    assert load(("KEYPREFIX", "none"), reserved={"keyPrefix"}) == load()
    assert complaints(("host", "h"), ("keyPrefix", "none"))[0].message == "unknown metadata name"


def test_lenient_only_warns_about_unknown_names(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "meshnode.registry"):
        assert load(("prot", "1"), lenient=True) == load()
    assert "c.yaml:1: spec.metadata.prot: unknown metadata name" in caplog.text
    (problem,) = complaints(("hoost", "x"), lenient=True)
    assert (problem.field, problem.message) == ("spec.metadata.host", "is missing")


def test_a_component_brings_its_own_lines() -> None:
    items = (MetadataItem("host", "h", line=4), MetadataItem("port", "x", line=6))
    component = Component(name="s", type="state.x", metadata=items, source=Source("f.yaml", 1))
    with pytest.raises(ConfigError) as caught:
        load_options(Options, component)
    assert [(problem.file, problem.line) for problem in caught.value.problems] == [("f.yaml", 6)]


def test_a_mapping_counts_as_its_json() -> None:
    found = load_options(
        Options, {"host": "h", "port": 5, "enableTLS": True, "hosts": {"a": "b"}, "names": ["x"]}
    )
    assert (found.port, found.tls, found.hosts, found.names) == (5, True, {"a": "b"}, ("x",))


def test_checks_of_the_driver_get_a_place() -> None:
    @frozen
    class Checked:
        port: int = option("port", "Its port.")

        def __attrs_post_init__(self) -> None:
            if self.port < 0:
                raise ConfigError([Problem("is negative", field="port"), Problem("makes no sense")])
            if self.port > 65535:
                raise ValueError("no such port")

    with pytest.raises(ConfigError) as caught:
        load_options(Checked, [("port", "-1")], SOURCE)
    assert [str(problem) for problem in caught.value.problems] == [
        "c.yaml:12: spec.metadata.port: is negative",
        "c.yaml:1: spec.metadata: makes no sense",
    ]
    with pytest.raises(ConfigError, match=r"c\.yaml:1: spec.metadata: no such port"):
        load_options(Checked, [("port", "70000")], SOURCE)


names = st.sampled_from(
    ["host", "port", "ratio", "enableTLS", "wait", "level", "key", "size", "mode", "hosts", "names", "x"]
)


@given(st.lists(st.tuples(names, st.text(max_size=12)), max_size=8))
def test_any_metadata_gives_options_or_problems(pairs: list[tuple[str, str]]) -> None:
    try:
        found: Options | None = load_options(Options, pairs, SOURCE)
    except ConfigError as error:
        found, problems = None, error.problems
    else:
        problems = ()
    assert (found is None) == bool(problems)
    assert all(problem.field.startswith("spec.metadata") for problem in problems)


@frozen
class Open:
    port: int = option("port", "Its port.", default=1)
    others: Mapping[str, str] = free_form("Passed on.")


def test_a_free_form_takes_what_no_option_has() -> None:
    given = [("PORT", "7"), ("Host", "h"), ("keyPrefix", "name"), ("host", "H"), ("empty", "")]
    loaded = load_options(Open, given, SOURCE, reserved={"keyPrefix"})
    assert loaded == Open(port=7, others={"Host": "h", "keyPrefix": "name", "host": "H", "empty": ""})
    assert load_options(Open, []) == Open(port=1, others={})
    assert "H" not in repr(loaded)
    assert [row.name for row in option_rows(Open)] == ["port"]


def test_a_free_form_says_what_is_given_twice() -> None:
    with pytest.raises(ConfigError) as caught:
        load_options(Open, [("host", "a"), ("host", "b"), ("port", "x")], SOURCE)
    assert [(one.field, one.message) for one in caught.value.problems] == [
        ("spec.metadata.host", "is given twice"),
        ("spec.metadata.port", 'found "x", expected a whole number'),
    ]
