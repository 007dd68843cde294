"""YAML into nodes: what was written and where, and nothing that can be made to run for long or deep."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshnode.config._problems import Report
from meshnode.config._scalars import json_text, json_value
from meshnode.config._yaml import Items, Node, Scalar, Table, documents, expand, is_null
from meshnode.errors import Problem


def read(text: str) -> list[Node]:
    report = Report()
    nodes = list(documents(text, report))
    assert not report.problems
    return nodes


def problems(text: str) -> list[Problem]:
    report = Report()
    list(documents(text, report))
    return report.problems


def table(text: str) -> Table:
    (node,) = read(text)
    assert isinstance(node, Table)
    return node


def test_words_stay_words() -> None:
    node = table(
        "y: no\non: 0x1F\nn: 1_000\ndate: 2020-01-01\noctal: 010\nclock: 22:22\nnothing: null\nquoted: 'null'"
    )
    values = {key.text: value for key, value in node.entries}
    assert list(values) == ["y", "on", "n", "date", "octal", "clock", "nothing", "quoted"]
    texts = [value.text for value in values.values() if isinstance(value, Scalar)]
    assert texts == ["no", "0x1F", "1_000", "2020-01-01", "010", "22:22", "null", "null"]
    assert is_null(values["nothing"])
    assert not is_null(values["quoted"])


def test_lines_are_those_of_an_editor() -> None:
    node = table("# first\na: 1\n\nb:\n  - x\n  - c: |\n      long\n      text\n    d: 2\n")
    a, b = node.get("a"), node.get("b")
    assert a is not None
    assert isinstance(b, Items)
    second = b.items[1]
    assert isinstance(second, Table)
    assert (node.line, a.line, b.line, second.line) == (2, 2, 5, 6)
    assert [key.line for key, _ in second.entries] == [6, 9]


def test_empty_documents_are_skipped() -> None:
    assert [
        json_value(node) for node in read("---\n---\n# only a comment\n---\na: 1\n---\n~\n---\nb: 2\n...\n")
    ] == [
        {"a": 1},
        {"b": 2},
    ]
    assert read("") == []
    assert read("# nothing\n") == []


def test_keys_given_twice() -> None:
    (problem,) = problems("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")
    assert (problem.line, problem.message, problem.remedy) == (
        5,
        'the key "c" is given twice',
        "first on line 3",
    )


def test_merge_keys_and_aliases() -> None:
    text = "base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\nmany: {<<: [{x: 9}, *b]}\nsame: *b\n"
    assert json_value(table(text)) == {
        "base": {"x": 1, "y": 2},
        "one": {"x": 1, "y": 3},
        "many": {"x": 9, "y": 2},
        "same": {"x": 1, "y": 2},
    }
    assert problems("a: {<<: 5}")[0].message == "<< takes a mapping or a list of mappings"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: [1,\n", 2, "not valid YAML"),
        ("a: b\n\tc: d\n", 2, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("ok: 1\n---\na: @x\n", 3, "not valid YAML"),
        ("a: \x00\n", 1, "not valid YAML"),
        ("x: 1\na: *nowhere\n", 2, "the alias *nowhere has no anchor"),
        ("a: &a [*a]\n", 1, "is inside the value that it stands for"),
        (
            "a: !!python/object/apply:os.system [x]\n",
            1,
            "the tag !!python/object/apply:os.system is not allowed",
        ),
        ("? [a, b]\n: c\n", 1, "a key must be a plain word"),
        ("a:\n" + "- " * 3000 + "x", 2, "nested more than 64"),
        ("[" * 100_000, 1, "nested more than 64"),
        ("{a: " * 100_000, 1, "nested more than 64"),
        ("&x [" * 50_000, 1, "nested more than 64"),
        ("a" * (4 * 1024 * 1024 + 1), 1, "larger than 4 MiB"),
    ],
)
def test_what_cannot_be_read(text: str, line: int, said: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert said in found[0].message
    assert found[0].line == line


def test_aliases_of_aliases_do_not_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (problem,) = problems("\n".join(lines))
    assert "more than 100000 values" in problem.message
    lines = ["a0: &a0 {x0: y}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}], x{i}: y}}" for i in range(1, 12)]
    (problem,) = problems("\n".join(lines))
    assert "more than 100000 values" in problem.message


def test_documents_before_a_mistake_are_read() -> None:
    report = Report()
    assert [json_value(node) for node in documents("a: 1\n---\nb: [\n", report)] == [{"a": 1}]
    assert len(report.problems) == 1


def test_json_text_is_what_was_written_or_json() -> None:
    node = table("a: 1.0\nb: yes\nc:\nd: {z: 1, a: [true, 'true', null, ü]}\ne: '007'\n")
    assert [json_text(value) for _, value in node.entries] == [
        "1.0",
        "yes",
        "",
        '{"a":[true,"true",null,"ü"],"z":1}',
        "007",
    ]


def test_environment_variables_in_values() -> None:
    report = Report()
    node = expand(table("a: $HOME/x ${HOME}${NOPE}\nb: ['$5', '^/$', $$]\n$HOME: k"), {"HOME": "/h"}, report)
    assert json_value(node) == {"a": "/h/x /h", "b": ["$5", "^/$", "$$"], "$HOME": "k"}
    assert [(one.line, one.field) for one in report.warnings] == [(1, "a")]


plain = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co", "Cn")), max_size=12)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain, inner, max_size=4),
    max_leaves=12,
)


@given(values, st.booleans())
def test_texts_survive_a_dump(value: Any, flow: bool) -> None:
    """What PyYAML writes is read back: quotes, escapes, block and flow style."""
    nodes = read(
        yaml.safe_dump({"value": value}, default_flow_style=flow, allow_unicode=True, default_style='"')
    )
    assert [json_value(node) for node in nodes] == [{"value": value}]


@given(st.text("ab:-[]{}&*!|>'\"#%@,? \n\t~<0", max_size=60))
def test_any_text_gives_nodes_or_problems(text: str) -> None:
    report = Report()
    nodes = list(documents(text, report))
    last = text.count("\n") + 1
    assert all(0 < problem.line <= last for problem in report.problems)
    assert all(0 < node.line <= last for node in nodes)
    try:
        expected = [node for node in yaml.compose_all(text, yaml.CSafeLoader) if node.tag[-5:] != ":null"]
    except yaml.YAMLError:
        assert report.problems
    else:
        assert report.problems or len(nodes) == len(expected)
