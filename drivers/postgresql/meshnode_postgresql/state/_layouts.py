"""The two layouts that Dapr's component has: tables, columns, values and etags as they stand there. No I/O.

Version 1: a value is `jsonb`, what was saved as JSON as it is, anything else (`isbinary`) as the JSON text
of its base64; the etag is the number of the transaction that wrote the row, `xmin`. Version 2: a value is
`bytea`, the etag a random UUID.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, final

from attrs import frozen
from psycopg import pq

from meshnode.errors import EtagInvalid, EtagMismatch, StateError
from meshnode.interfaces import SetRequest

__all__ = ["Layout", "Value", "layout_v1", "layout_v2"]

_JSON = "application/json"
_TEXT, _BINARY = 0, 1

Value = tuple[bytes | None, int]
"""A parameter and its format."""


@final
@frozen
class Layout:
    """One of them, with the tables' names filled in.

    `columns` are those that a write sets: SQL over the parameters `$3`, `$4`, … of which `encode` makes
    `parameters`. `reads` are what a read needs, texts that `decode` takes. `migrations` make the tables, one
    step after another; `level_key` and `swept_key` are rows of the metadata table.
    """

    table: str
    metadata_table: str
    level_key: str
    swept_key: str
    migrations: Sequence[str]
    columns: Mapping[str, str]
    updated: str
    expires: str
    parameters: int
    etag: str
    etag_type: str
    reads: Sequence[str]
    encode: Callable[[SetRequest], list[Value]]
    decode: Callable[[Sequence[bytes]], bytes]
    check_etag: Callable[[str], bytes]
    document: str = ""
    """Where queries look; empty where there are none."""


def layout_v1(table: str, metadata_table: str) -> Layout:
    return Layout(
        table=table,
        metadata_table=metadata_table,
        level_key="migrations",
        swept_key="last-cleanup",
        migrations=(
            f"""CREATE TABLE IF NOT EXISTS {table} (
                key text NOT NULL PRIMARY KEY,
                value jsonb NOT NULL,
                isbinary boolean NOT NULL,
                insertdate timestamptz NOT NULL DEFAULT now(),
                updatedate timestamptz
            )""",
            f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS expiredate timestamptz",
        ),
        columns={"value": "$3::jsonb", "isbinary": "$4::boolean"},
        updated="updatedate",
        expires="expiredate",
        parameters=2,
        etag="xmin",
        etag_type="xid",
        reads=("isbinary", "value"),
        encode=_encode_v1,
        decode=_decode_v1,
        check_etag=_check_number,
        document="value",
    )


def layout_v2(prefix: str, metadata_table: str) -> Layout:
    table = f"{prefix}state"
    return Layout(
        table=table,
        metadata_table=metadata_table,
        level_key=f"migrations-state-v2-{prefix}",
        swept_key=f"last-cleanup-state-v2-{prefix}",
        migrations=(
            f"""CREATE TABLE IF NOT EXISTS {table} (
                key text NOT NULL PRIMARY KEY,
                value bytea NOT NULL,
                etag uuid NOT NULL DEFAULT gen_random_uuid(),
                created_at timestamptz NOT NULL DEFAULT now(),
                updated_at timestamptz,
                expires_at timestamptz
            );
            CREATE INDEX ON {table} (expires_at)""",
        ),
        columns={"value": "$3::bytea", "etag": "gen_random_uuid()"},
        updated="updated_at",
        expires="expires_at",
        parameters=1,
        etag="etag",
        etag_type="uuid",
        reads=("value",),
        encode=_encode_v2,
        decode=_decode_v2,
        check_etag=_check_uuid,
    )


def _encode_v1(request: SetRequest) -> list[Value]:
    if request.content_type == _JSON and _fits_jsonb(request.value):
        return [(request.value, _TEXT), (b"f", _TEXT)]
    return [(b'"' + base64.b64encode(request.value) + b'"', _TEXT), (b"t", _TEXT)]


def _fits_jsonb(value: bytes) -> bool:
    """False for what is no JSON (the node may have encrypted it), and for texts that PostgreSQL lacks."""
    try:
        parsed = json.loads(value.decode(), parse_constant=_refuse, parse_int=str, parse_float=str)
        if b"\\u" not in value:
            return True
        return "\\u0000" not in json.dumps(parsed, ensure_ascii=False).encode().decode()
    except (ValueError, RecursionError):
        return False


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _decode_v1(row: Sequence[bytes]) -> bytes:
    is_binary, value = row
    if is_binary != b"t":
        return value
    try:
        text: Any = json.loads(value)
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise StateError(f"a value that is said to be binary is no base64: {error}") from error


def _check_number(etag: str) -> bytes:
    if not (etag.isascii() and etag.isdigit() and len(etag) <= 10 and int(etag) < 2**32):
        raise EtagInvalid(f"invalid etag value: {etag!r} is no etag of this store's")
    return etag.encode()


def _encode_v2(request: SetRequest) -> list[Value]:
    return [(request.value, _BINARY)]


def _decode_v2(row: Sequence[bytes]) -> bytes:
    return pq.Escaping().unescape_bytea(row[0])


def _check_uuid(etag: str) -> bytes:
    """What is no UUID can only be another's, as in Dapr."""
    try:
        return str(uuid.UUID(etag)).encode()
    except ValueError:
        raise EtagMismatch(f"possible etag mismatch. error from state store: {etag!r} is no UUID") from None
