"""What comes back, as JSON in the shape of Dapr's answers: a list of rows, each a list of values.

The server sends texts (in the ISO date style). What a type becomes was taken from the library Dapr uses;
types that are not here stay texts.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime

from psycopg import pq
from psycopg.pq.abc import PGresult

from meshnode.errors import BindingError
from meshnode_postgresql._gotime import format_time
from meshnode_postgresql.bindings._intervals import interval_json, time_json

__all__ = ["rows_json"]

Convert = Callable[[str], str]

_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^{},"]+)', re.DOTALL)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?")


def rows_json(result: PGresult) -> bytes:
    """Raises `BindingError` for what JSON cannot say."""
    columns = range(result.nfields)
    converters = [_CONVERTERS.get(result.ftype(column), _text) for column in columns]
    try:
        rows = (
            "["
            + ",".join(_value(result.get_value(row, column), converters[column]) for column in columns)
            + "]"
            for row in range(result.ntuples)
        )
        return ("[" + ",".join(rows) + "]").encode()
    except OverflowError as error:
        raise BindingError(f"error serializing results: {error} has no place in JSON") from error


def _value(value: bytes | None, convert: Convert) -> str:
    return "null" if value is None else convert(value.decode())


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _as_it_is(text: str) -> str:
    return text


def _bool(text: str) -> str:
    return "true" if text == "t" else "false"


def _float(text: str) -> str:
    if text[-1].isalpha():
        raise OverflowError(text)  # NaN, Infinity
    return text


def _numeric(text: str) -> str:
    return _text(text) if text[-1].isalpha() else text


def _char(text: str) -> str:
    return str(ord(text)) if len(text) == 1 else "0" if not text else str(int(text[1:], 8))


def _bytes(text: str) -> str:
    return _base64(pq.Escaping().unescape_bytea(text.encode()))


def _base64(data: bytes) -> str:
    return f'"{base64.b64encode(data).decode()}"'


def _uuid(text: str) -> str:
    return json.dumps(list(bytes.fromhex(text.replace("-", ""))), separators=(",", ":"))


def _mac(text: str) -> str:
    return _base64(bytes.fromhex(text.replace(":", "")))


def _xml(text: str) -> str:
    return _base64(text.encode())


def _inet(text: str) -> str:
    return _text(text if "/" in text else text + ("/128" if ":" in text else "/32"))


def _date(text: str) -> str:
    return f'"{text}T00:00:00Z"' if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else _text(text)


def _timestamp(text: str) -> str:
    """Infinity and years that Go cannot write stay texts."""
    return f'"{text.replace(" ", "T")}Z"' if _MOMENT.fullmatch(text) else _text(text)


def _timestamptz(text: str) -> str:
    try:
        return f'"{format_time(datetime.fromisoformat(text))}"'
    except (ValueError, OverflowError):
        return _text(text)


def _interval(text: str) -> str:
    try:
        return interval_json(text)
    except ValueError:
        return _text(text)


def _array(convert: Convert) -> Convert:
    """Arrays of several dimensions become one list, as in Dapr."""

    def converted(text: str) -> str:
        body = text.partition("=")[2] if text.startswith("[") else text
        return "[" + ",".join(_element(match, convert) for match in _ELEMENT.finditer(body)) + "]"

    return converted


def _element(match: re.Match[str], convert: Convert) -> str:
    quoted, plain = match.groups()
    if quoted is not None:
        return convert(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
    return "null" if plain == "NULL" else convert(plain)


# (type, type of its arrays): converter
_TYPES: Mapping[tuple[int, int], Convert] = {
    (16, 1000): _bool,
    (17, 1001): _bytes,
    (18, 1002): _char,
    (19, 1003): _text,
    (20, 1016): _as_it_is,  # int8
    (21, 1005): _as_it_is,  # int2
    (23, 1007): _as_it_is,  # int4
    (25, 1009): _text,
    (26, 1028): _as_it_is,  # oid
    (28, 1011): _as_it_is,  # xid
    (29, 1012): _as_it_is,  # cid
    (114, 199): _as_it_is,  # json
    (142, 143): _xml,
    (650, 651): _inet,  # cidr
    (700, 1021): _float,
    (701, 1022): _float,
    (829, 1040): _mac,
    (869, 1041): _inet,
    (1042, 1014): _text,
    (1043, 1015): _text,
    (1082, 1182): _date,
    (1083, 1183): time_json,
    (1114, 1115): _timestamp,
    (1184, 1185): _timestamptz,
    (1186, 1187): _interval,
    (1700, 1231): _numeric,
    (2950, 2951): _uuid,
    (3802, 3807): _as_it_is,  # jsonb
}
_CONVERTERS: Mapping[int, Convert] = {
    **{single: convert for (single, _), convert in _TYPES.items()},
    **{array: _array(convert) for (_, array), convert in _TYPES.items()},
}
