"""The store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, final

import httpx

from meshnode.errors import ComponentError, ComponentUnavailable, InvalidArgument
from meshnode.interfaces import SecretFeature, reason_of
from meshnode_secretstores_vault._options import Options
from meshnode_secretstores_vault._paths import joined, path_of

__all__ = ["VaultSecrets"]

_SEVERAL = frozenset({SecretFeature.MULTIPLE_KEY_VALUES_PER_SECRET})
_VERSION = "version_id"
_LATEST = "0"
_MOST_SECRETS = 10_000
"""How many secrets bulk_get reads; more than that is surely a mistake in the prefix."""


@final
class VaultSecrets:
    """Fulfils `SecretStore`. `version_id` in a request's metadata asks for a version."""

    def __init__(self, options: Options, client: httpx.AsyncClient) -> None:
        self._client = client
        self._text = options.value_type == "text"
        self._engine = f"{options.address.rstrip('/')}/v1/{_quoted(options.engine_path)}"
        self._prefix = _quoted(options.prefix) if options.use_prefix else ""
        self._extensions = {"sni_hostname": options.tls_server_name} if options.tls_server_name else {}
        self.features = frozenset[SecretFeature]() if self._text else _SEVERAL

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        return await self._read(name, _version(metadata))

    async def bulk_get(self, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """Folders within are gone through; a secret without the version that was asked for is left out."""
        version = _version(metadata)
        secrets: dict[str, Mapping[str, str]] = {}
        for name in await self._names():
            try:
                secrets[name] = await self._read(name, version)
            except KeyError:
                continue
        return secrets

    async def _read(self, name: str, version: str) -> Mapping[str, str]:
        path = joined("data", self._prefix, path_of(name))
        content = await self._asked("GET", path, {"version": version})
        if content is None:
            raise KeyError(name)
        values = content.get("data")
        if not isinstance(values, dict):
            raise ComponentError("Vault answered without a secret's data; enginePath must be of version 2")
        if self._text:
            return {name: json.dumps(values, ensure_ascii=False, separators=(",", ":"))}
        return {key: _in_words(value) for key, value in values.items()}

    async def _names(self) -> list[str]:
        names: list[str] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            path = joined("metadata", self._prefix, path_of(folder[:-1]) if folder else "")
            content = await self._asked("LIST", path, {})
            keys = content.get("keys") if content is not None else []
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise ComponentError("Vault answered without a list of names")
            for key in keys:
                (folders if key.endswith("/") else names).append(folder + key)
            if len(names) + len(folders) > _MOST_SECRETS:
                raise ComponentError(f"there are more than {_MOST_SECRETS} secrets below the prefix")
        return names

    async def _asked(self, method: str, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        """The `data` of the answer; None where there is nothing."""
        try:
            answer = await self._client.request(
                method, f"{self._engine}/{path}", params=query, extensions=self._extensions
            )
        except (httpx.TransportError, OSError) as error:
            raise ComponentUnavailable(f"Vault cannot be reached: {reason_of(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Without the body, which may hold a secret.
            raise ComponentError(f"Vault's answer cannot be read: {type(error).__name__}") from None
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise _refusal(answer)
        data = _json(answer).get("data")
        if not isinstance(data, dict):
            raise ComponentError("Vault answered without data")
        return data


def _version(metadata: Mapping[str, str]) -> str:
    version = metadata.get(_VERSION) or _LATEST
    if not version.isascii() or not version.isdigit() or len(version) > 10:
        raise InvalidArgument(f"{_VERSION} is a whole number, not {version!r}")
    return version


def _quoted(path: str) -> str:
    """A path of the component's own, as it is written but for characters that have a meaning."""
    whole = joined(path)
    return path_of(whole) if whole else ""


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except (ValueError, RecursionError):
        content = None
    return content if isinstance(content, dict) else {}


def _refusal(answer: httpx.Response) -> ComponentError:
    """In Vault's words, which tell what was wrong with the request and nothing of secrets."""
    errors = _json(answer).get("errors")
    words = "; ".join(str(one) for one in errors)[:500].strip() if isinstance(errors, list) else ""
    message = f"Vault answered with status {answer.status_code}{': ' if words else ''}{words}"
    busy = answer.status_code == 429 or answer.status_code >= 500
    return ComponentUnavailable(message) if busy else ComponentError(message)


def _in_words(value: Any) -> str:
    """Text as it is; null is empty; everything else as in JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
