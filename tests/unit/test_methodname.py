"""The path of a method, as Dapr cleans it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.blocks.methodname import normalized
from meshnode.errors import InvalidArgument


@pytest.mark.parametrize(
    ("method", "cleaned"),
    [
        ("", ""), ("orders", "orders"), ("/a//b/../c", "/a/c"), ("//a", "/a"), ("a/", "a"), ("/", "/"),
        (".", ""), ("..", ""), ("../../a", "a"), ("/../a", "/a"), ("a/../..", ""), ("a.b", "a.b"),
    ],
)  # fmt: skip
def test_a_path_is_made_plain(method: str, cleaned: str) -> None:
    assert normalized(method) == cleaned


@pytest.mark.parametrize("character", ["#", "?", "\0", "\n", "\x1f", "\x7f"])
def test_what_no_path_holds(character: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid method: method contains"):
        normalized(f"a{character}b")


@given(st.text(alphabet="ab./"))
def test_what_is_plain_stays(method: str) -> None:
    cleaned = normalized(method)
    assert normalized(cleaned) == cleaned
    assert ".." not in cleaned.split("/")
