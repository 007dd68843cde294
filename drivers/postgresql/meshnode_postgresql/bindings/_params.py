"""`params` as the texts that go to the server, which knows what type each is to be.

Only for lists and objects the type has to be asked for first: they may be an array or JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, final

from meshnode.errors import InvalidArgument
from meshnode_postgresql._text import encode, quoted

__all__ = ["Params", "parse_params"]

_JSON_TYPES = frozenset({114, 3802})
_MOST = 65535
_LONGEST_INTEGER = 1000


@final
class _Number(str):
    """A number as it was written."""

    __slots__ = ()


@final
class Params:
    """The parameters of one statement."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def __bool__(self) -> bool:
        return bool(self._values)

    @property
    def need_types(self) -> bool:
        return any(isinstance(value, list | dict) for value in self._values)

    def encoded(self, types: Sequence[int] | None = None) -> list[bytes | None]:
        """`types` are the server's, in the same order; needed where `need_types` is True."""
        if types is None:
            return [_encode(value, 0) for value in self._values]
        if len(types) != len(self._values):
            raise InvalidArgument(f"params has {len(self._values)} values, the statement {len(types)}")
        return [_encode(value, kind) for value, kind in zip(self._values, types, strict=True)]


def parse_params(text: str) -> Params:
    """Raises `InvalidArgument` where it is no JSON list."""
    if not text:
        return Params(())
    try:
        values = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"params is no JSON: {error}") from None
    if values is None:
        return Params(())
    if not isinstance(values, list):
        raise InvalidArgument("params must be a JSON list")
    if len(values) > _MOST:
        raise InvalidArgument(f"params has more than {_MOST} values")
    # Within lists and objects numbers are numbers.
    return Params(
        [two if isinstance(one, list | dict) else one for one, two in zip(values, plain, strict=True)]
    )


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _encode(value: Any, kind: int) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, list) and kind not in _JSON_TYPES:
        text = _array(value)
    elif isinstance(value, list | dict):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = _scalar(value)
    return encode(text)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _number(value) if isinstance(value, _Number) else str(value)


def _number(text: str) -> str:
    """Whole numbers without a point or exponent, so that an integer column takes `1.0` and `1e3` too."""
    value = Decimal(text)
    whole = value.adjusted() < _LONGEST_INTEGER and value == value.to_integral_value()
    return f"{value:.0f}" if whole else text


def _array(values: Sequence[Any]) -> str:
    return "{" + ",".join(_element(value) for value in values) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return _array(value)
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else _scalar(value)
    return quoted(text)
