"""secretstores.local.file: secrets in a JSON file, read once at the start.

Objects within objects become names: with the separator `:`, `{"redis": {"password": "x"}}` is the secret
`redis:password`, and the parts of a list are numbered. With `multiValued` the first level names the secret
and only what lies below is joined.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, final

import trio
from attrs import frozen

from meshnode.errors import ComponentError
from meshnode.interfaces import Driver, DriverContext, SecretFeature, SecretStore, option

__all__ = ["FileOptions", "FileSecrets", "file_driver", "secrets_of"]

_MAX_DEPTH = 64
_SEVERAL = frozenset({SecretFeature.MULTIPLE_KEY_VALUES_PER_SECRET})


@frozen
class FileOptions:
    secrets_file: str = option("secretsFile", "Path of the JSON file.")
    nested_separator: str = option(
        "nestedSeparator", "What stands between the parts of the name of a nested value.", default=":"
    )
    multi_valued: bool = option(
        "multiValued",
        "Whether a secret can have several keys: those of the object under its name.",
        default=False,
    )


@final
class FileSecrets:
    """Fulfils `SecretStore`."""

    def __init__(self, secrets: Mapping[str, Mapping[str, str]], *, multi_valued: bool = False) -> None:
        self._secrets = secrets
        self.features = _SEVERAL if multi_valued else frozenset[SecretFeature]()

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        await trio.lowlevel.checkpoint()
        return self._secrets[name]

    async def bulk_get(self, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        await trio.lowlevel.checkpoint()
        return self._secrets


def secrets_of(text: str, separator: str, *, multi_valued: bool) -> dict[str, dict[str, str]]:
    """The secrets in a JSON text. Raises `ValueError` with a sentence."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("is not a JSON object of names and values")  # noqa: TRY004 - the text is wrong, not a type
    if not multi_valued:
        return {name: {name: value} for name, value in _distinct(_flat(content, "", separator, 0)).items()}
    secrets: dict[str, dict[str, str]] = {}
    for name, value in content.items():
        nested = isinstance(value, dict)
        secrets[name] = _distinct(
            _flat(value, "", separator, 0) if nested else _flat(value, name, separator, 0)
        )
    return secrets


def _flat(value: Any, name: str, separator: str, depth: int) -> Iterator[tuple[str, str]]:
    """Name and text of each value within; `name` is empty at the top."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else ((str(i), item) for i, item in enumerate(value))
        for key, part in parts:
            yield from _flat(part, f"{name}{separator}{key}" if name else key, separator, depth + 1)
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    """Text as it is; numbers and booleans as in JSON; null is empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _distinct(pairs: Iterator[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f'has two values named "{name}"')
        values[name] = value
    return values


@asynccontextmanager
async def _open(options: FileOptions, context: DriverContext) -> AsyncIterator[SecretStore]:
    path = trio.Path(options.secrets_file)
    try:
        text = await path.read_text(encoding="utf-8-sig")
        secrets = secrets_of(text, options.nested_separator or ":", multi_valued=options.multi_valued)
    except OSError as error:
        raise ComponentError(f"the secrets file {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        # The error of the JSON decoder carries no part of the text, which holds secrets.
        raise ComponentError(f"the secrets file {path} cannot be used: it {_reason(error)}") from None
    yield FileSecrets(secrets, multi_valued=options.multi_valued)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
    return "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)


file_driver: Driver[SecretStore] = Driver(
    type="secretstores.local.file",
    metadata=FileOptions,
    open=_open,
    summary="Secrets in a JSON file, for development.",
)
