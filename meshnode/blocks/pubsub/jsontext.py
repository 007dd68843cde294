"""JSON objects whose members keep their text.

An event's data passes through a node twice, wrapped and unwrapped; numbers that Python or Go would round,
spacing and escapes stay what the publisher wrote, because only the members' bounds are looked for. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from json import JSONDecoder, JSONEncoder
from json.decoder import JSONDecodeError
from json.encoder import encode_basestring
from typing import Any, final

from attrs import frozen

__all__ = ["Member", "dump", "is_json_text", "join_members", "split_members", "whole"]

_space: Callable[[str, int], re.Match[str]] = re.compile(r"[ \t\n\r]*").match  # type: ignore[assignment]


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = JSONDecoder(parse_constant=_refuse)
# Made once, and strings go to C directly: `json.dumps` with options makes an encoder each time, and an
# envelope has twenty strings (29 µs before, 8 after).
_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_encode_string: Callable[[str], str] = encode_basestring


@final
@frozen
class Member:
    """A member's value, and the text it stood in."""

    value: Any
    text: str


def dump(value: Any) -> str:
    """A value's JSON text."""
    return _encode_string(value) if isinstance(value, str) else _encode(value)


def is_json_text(text: str) -> bool:
    """Whether the whole text is one JSON value (RFC 8259: no NaN, no Infinity)."""
    try:
        _decoder.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def whole(value: Any) -> Any:
    """The value with U+FFFD for halves of surrogate pairs, which JSON can write and UTF-8 cannot."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {whole(name): whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [whole(one) for one in value]
    return value


def join_members(members: Mapping[str, str]) -> str:
    """An object of members whose values are JSON text already."""
    return "{" + ",".join([f"{_encode_string(name)}:{text}" for name, text in members.items()]) + "}"


def split_members(text: str) -> dict[str, Member]:
    """The members of an object, the last one where a name comes twice. Raises `ValueError`."""
    at = _sign(text, 0, "{")
    members: dict[str, Member] = {}
    if text[at : at + 1] == "}":
        return _ended(text, at + 1, members)
    while True:
        name, end = _value(text, at)
        if not isinstance(name, str):
            raise JSONDecodeError("expected a member's name", text, at)
        at = _sign(text, end, ":")
        value, end = _value(text, at)
        members[name] = Member(value, text[at:end])
        end = _space(text, end).end()
        if text[end : end + 1] == "}":
            return _ended(text, end + 1, members)
        at = _sign(text, end, ",")


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _decoder.raw_decode(text, at)
    except RecursionError as error:
        raise JSONDecodeError("nested too deeply", text, at) from error


def _sign(text: str, at: int, sign: str) -> int:
    """The place of what follows the sign, spaces left out on both sides."""
    at = _space(text, at).end()
    if text[at : at + 1] != sign:
        raise JSONDecodeError(f"expected '{sign}'", text, at)
    return _space(text, at + 1).end()


def _ended(text: str, at: int, members: dict[str, Member]) -> dict[str, Member]:
    if _space(text, at).end() != len(text):
        raise JSONDecodeError("extra data behind the object", text, at)
    return members
