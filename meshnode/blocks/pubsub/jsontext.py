"""JSON objects whose members keep their text.

An event's data passes through a node twice, wrapped and unwrapped; numbers that Python or Go would round,
spacing and escapes stay what the publisher wrote, because only the members' bounds are looked for. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from json import JSONDecoder
from json.decoder import JSONDecodeError
from typing import Any, final

from attrs import frozen

__all__ = ["Member", "dump", "is_json_text", "join_members", "split_members"]

_SPACE = " \t\n\r"


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = JSONDecoder(parse_constant=_refuse)


@final
@frozen
class Member:
    """A member's value, and the text it stood in."""

    value: Any
    text: str


def dump(value: Any) -> str:
    """A value's JSON text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def is_json_text(text: str) -> bool:
    """Whether the whole text is one JSON value (RFC 8259: no NaN, no Infinity)."""
    try:
        _decoder.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def join_members(members: Mapping[str, str]) -> str:
    """An object of members whose values are JSON text already."""
    return "{" + ",".join(f"{dump(name)}:{text}" for name, text in members.items()) + "}"


def split_members(text: str) -> dict[str, Member]:
    """The members of an object, the last one where a name comes twice. Raises `ValueError`."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise JSONDecodeError("expected an object", text, at)
    members: dict[str, Member] = {}
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return _ended(text, at + 1, members)
    while True:
        name, at = _value(text, at)
        if not isinstance(name, str):
            raise JSONDecodeError("expected a member's name", text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise JSONDecodeError("expected ':'", text, at)
        begin = _skip(text, at + 1)
        value, end = _value(text, begin)
        members[name] = Member(value, text[begin:end])
        at = _skip(text, end)
        sign = text[at : at + 1]
        if sign == "}":
            return _ended(text, at + 1, members)
        if sign != ",":
            raise JSONDecodeError("expected ',' or '}'", text, at)
        at = _skip(text, at + 1)


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _decoder.raw_decode(text, at)
    except RecursionError as error:
        raise JSONDecodeError("nested too deeply", text, at) from error


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    return at


def _ended(text: str, at: int, members: dict[str, Member]) -> dict[str, Member]:
    if _skip(text, at) != len(text):
        raise JSONDecodeError("extra data behind the object", text, at)
    return members
