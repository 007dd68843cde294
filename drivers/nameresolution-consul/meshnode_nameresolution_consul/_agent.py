"""The agent's HTTP API, as far as it is needed, and what goes wrong with it in the node's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, final
from urllib.parse import quote

import httpx

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode.interfaces import reason_of
from meshnode_nameresolution_consul import _shapes as shapes
from meshnode_nameresolution_consul._settings import Settings

__all__ = ["Agent", "Forgotten"]

_INDEX: Final = "X-Consul-Index"
_WAIT: Final = "30s"
"""How long the agent keeps a question open that waits for a change."""


class Forgotten(ComponentError):
    """The agent knows nothing of the service or the check: it has been started anew, perhaps."""


@final
class Agent:
    """Every call is one request. Answers that are no service's are left to `addresses`."""

    def __init__(
        self, settings: Settings, client: httpx.AsyncClient, options: Mapping[str, Any] | None
    ) -> None:
        self._where = settings.socket or settings.url
        self._client = client
        self._usual = dict(settings.query)
        self._extensions = {"sni_hostname": settings.server_name} if settings.server_name else {}
        query = shapes.read(shapes.QUERY, options or {}, "queryOptions", [])
        self._query = {**self._usual, **_parameters(query)}
        # Without queryOptions the agent may answer from its cache, with them only when they say so: Dapr's
        # defaults. Answers that must be consistent cannot come from there.
        self._cached = query.get("UseCache", options is None) and not query.get("RequireConsistent", False)
        self._headers = {"X-Consul-Token": query["Token"]} if query.get("Token") else {}
        self._freshness = _freshness(query)

    async def check(self) -> None:
        """Raises unless the agent answers, and lets this node in."""
        await self._asked("GET", "/v1/agent/self")

    async def register(self, body: Mapping[str, Any]) -> None:
        query = {"replace-existing-checks": "true"}
        await self._asked("PUT", "/v1/agent/service/register", query, body)

    async def deregister(self, service: str) -> None:
        await self._asked("PUT", f"/v1/agent/service/deregister/{quote(service, safe='')}")

    async def look_for(self, service: str) -> None:
        """Raises `Forgotten` when it is not registered."""
        await self._asked("GET", f"/v1/agent/service/{quote(service, safe='')}")

    async def passing(self, check: str) -> None:
        """Raises `Forgotten` when there is no such check."""
        await self._asked("PUT", f"/v1/agent/check/pass/{quote(check, safe='')}")

    async def failing(self, check: str, note: str) -> None:
        await self._asked("PUT", f"/v1/agent/check/fail/{quote(check, safe='')}", {"note": note})

    async def healthy(self, app_id: str) -> Sequence[Any]:
        """The services of that name whose checks pass."""
        query = {"cached": ""} if self._cached else {}
        headers = {"Cache-Control": self._freshness} if self._cached and self._freshness else {}
        answer = await self._asked(
            "GET", _services(app_id), {**self._query, **query, "passing": "1"}, None, headers
        )
        return _entries(answer)

    async def changed(self, app_id: str, index: int) -> tuple[Sequence[Any], int]:
        """The same as soon as it differs from what had that index, or some time later; and its index."""
        query = {**self._query, "passing": "1", "index": str(index), "wait": _WAIT}
        answer = await self._asked("GET", _services(app_id), query)
        told = answer.headers.get(_INDEX, "")
        now = int(told) if told.isascii() and told.isdecimal() else 0
        # An index that went back belongs to another history: Consul's documentation has one begin anew.
        return _entries(answer), now if now >= index else 0

    async def _asked(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        own = self._headers if path.startswith("/v1/health/") else {}
        try:
            answer = await self._client.request(
                method,
                path,
                params={**self._usual, **(query or {})},
                json=body,
                headers={**own, **(headers or {})},
                extensions=self._extensions,
            )
        except (httpx.TransportError, OSError) as error:
            raise ComponentUnavailable(f"consul at {self._where}: {reason_of(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ComponentError(f"consul at {self._where}: {reason_of(error)}") from error
        if answer.status_code != 200:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: httpx.Response) -> ComponentError:
        words = answer.text[:500].strip()
        message = f"consul at {self._where}: status {answer.status_code}{': ' if words else ''}{words}"
        # Agents before 1.12 say 500 of a check that they do not know.
        if answer.status_code == 404 or "Unknown check" in words or "unknown check" in words:
            return Forgotten(message)
        busy = answer.status_code == 429 or answer.status_code >= 500
        return ComponentUnavailable(message) if busy else ComponentError(message)


def _services(app_id: str) -> str:
    return f"/v1/health/service/{quote(app_id, safe='')}"


def _entries(answer: httpx.Response) -> Sequence[Any]:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise ComponentError("consul's answer is no list of services")
    return found


def _parameters(query: Mapping[str, Any]) -> dict[str, Any]:
    """Query options as Consul's own client sends them."""
    found: dict[str, Any] = {
        "ns": query.get("Namespace"),
        "partition": query.get("Partition"),
        "dc": query.get("Datacenter"),
        "near": query.get("Near"),
        "filter": query.get("Filter"),
        "relay-factor": query.get("RelayFactor"),
        "node-meta": [f"{name}:{value}" for name, value in query.get("NodeMeta", {}).items()],
        "wait": f"{round(query['WaitTime'] * 1000)}ms" if query.get("WaitTime") else "",
        "local-only": "true" if query.get("LocalOnly") else "",
        "connect": "true" if query.get("Connect") else "",
    }
    given = {name: value for name, value in found.items() if value}
    for name, key in (("stale", "AllowStale"), ("consistent", "RequireConsistent")):
        if query.get(key):
            given[name] = ""
    return given


def _freshness(query: Mapping[str, Any]) -> str:
    parts = {"max-age": query.get("MaxAge"), "stale-if-error": query.get("StaleIfError")}
    return ", ".join(f"{name}={value:.0f}" for name, value in parts.items() if value)
