"""The store."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from typing import Any, Final, final

import httpx

from meshnode.errors import ComponentError, ComponentUnavailable, InvalidArgument
from meshnode.interfaces import DriverContext, SecretFeature, reason_of
from meshnode_secretstores_kubernetes._cluster import Cluster
from meshnode_secretstores_kubernetes._names import is_namespace, is_secret
from meshnode_secretstores_kubernetes._options import Options
from meshnode_secretstores_kubernetes._token import Token

__all__ = ["KubernetesSecrets"]

_PAGE: Final = "100"
_UNAUTHORIZED, _NOT_FOUND, _TOO_MANY, _GONE = 401, 404, 429, 410


@final
class KubernetesSecrets:
    """Fulfils `SecretStore`. `namespace` in a request's metadata asks for another namespace's secrets."""

    features: Final = frozenset({SecretFeature.MULTIPLE_KEY_VALUES_PER_SECRET})

    def __init__(
        self, options: Options, context: DriverContext, cluster: Cluster, client: httpx.AsyncClient
    ) -> None:
        self._client = client
        self._token = Token(cluster)
        self._log: logging.Logger = context.log
        self._usual = context.env.get("NAMESPACE") or options.default_namespace
        self._extensions = {"sni_hostname": cluster.server_name} if cluster.server_name else {}

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        namespace = self._namespace(metadata)
        if not is_secret(name):
            raise KeyError(name)
        found = await self._asked(f"/api/v1/namespaces/{namespace}/secrets/{name}", {})
        if found is None:
            raise KeyError(name)
        return self._values(found, f"{namespace}/{name}")

    async def bulk_get(self, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        namespace = self._namespace(metadata)
        secrets: dict[str, Mapping[str, str]] = {}
        position = ""
        while True:
            query = {"limit": _PAGE, **({"continue": position} if position else {})}
            page = await self._asked(f"/api/v1/namespaces/{namespace}/secrets", query) or {}
            for one in _listed(page):
                name = _part(one, "metadata").get("name")
                if isinstance(name, str):
                    secrets[name] = self._values(one, f"{namespace}/{name}")
            position = str(_part(page, "metadata").get("continue") or "")
            if not position:
                return secrets

    def _namespace(self, metadata: Mapping[str, str]) -> str:
        namespace = metadata.get("namespace") or self._usual
        if not namespace:
            raise InvalidArgument(
                "namespace is missing on metadata and NAMESPACE env variable, and no default namespace is set"
            )
        if not is_namespace(namespace):
            raise InvalidArgument(f"{namespace!r} is no namespace")
        return namespace

    def _values(self, secret: Mapping[str, Any], which: str) -> dict[str, str]:
        """A value that is no text cannot be said in Dapr's API, which has text only."""
        values: dict[str, str] = {}
        for key, data in _part(secret, "data").items():
            try:
                values[key] = base64.b64decode(data or "", validate=True).decode()
            except (ValueError, TypeError):
                self._log.warning("the key %s of the secret %s is left out: its value is no text", key, which)
        return values

    async def _asked(self, path: str, query: Mapping[str, str]) -> Mapping[str, Any] | None:
        """What the API server has there; None where there is nothing."""
        answer = await self._request(path, query)
        if answer.status_code == _UNAUTHORIZED and self._token.refused():
            answer = await self._request(path, query)
        content = _json(answer)
        if answer.status_code == _NOT_FOUND and (content or {}).get("reason") == "NotFound":
            return None
        if answer.status_code != httpx.codes.OK:
            raise _refusal(answer.status_code, content)
        if content is None:
            raise ComponentError("Kubernetes' answer is no object of its API")
        return content

    async def _request(self, path: str, query: Mapping[str, str]) -> httpx.Response:
        headers = await self._token.header()
        try:
            return await self._client.get(path, params=query, headers=headers, extensions=self._extensions)
        except (httpx.TransportError, OSError) as error:
            raise ComponentUnavailable(f"Kubernetes cannot be reached: {reason_of(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Without the body, which may hold a secret.
            raise ComponentError(f"Kubernetes' answer cannot be read: {type(error).__name__}") from None


def _refusal(status: int, content: Mapping[str, Any] | None) -> ComponentError:
    """In the words of the API server's Status, which tell who may not do what."""
    words = str((content or {}).get("message") or "")[:500].strip()
    message = f"Kubernetes answered with status {status}{': ' if words else ''}{words}"
    # A list that was begun too long ago to be gone on with can be begun anew.
    passing = status in (_TOO_MANY, _GONE) or status >= httpx.codes.INTERNAL_SERVER_ERROR
    return ComponentUnavailable(message) if passing else ComponentError(message)


def _json(answer: httpx.Response) -> Mapping[str, Any] | None:
    try:
        content = answer.json()
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _listed(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    items = page.get("items")
    return [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []


def _part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}
