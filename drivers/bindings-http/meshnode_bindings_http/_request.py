"""Which request an invocation is, and which one follows a redirect; no I/O.

Request metadata whose names begin with a capital letter are headers. `traceparent`, `tracestate` and
`baggage`, which the node adds, are headers too and win over headers of these names.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import final
from urllib.parse import unquote

import attrs
import httpx
from attrs import frozen

from meshnode.errors import InvalidArgument

__all__ = ["OPERATIONS", "Outgoing", "following", "header_problem", "outgoing"]

OPERATIONS = ("create", "get", "head", "post", "put", "patch", "delete", "options", "trace")

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_JSON = "application/json; charset=utf-8"
_TRACE = ("traceparent", "tracestate", "baggage")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
# Go's client writes these itself, whatever the request says.
_OWN = frozenset({"host", "content-length", "transfer-encoding", "trailer"})
_SECRET = frozenset({"authorization", "www-authenticate", "cookie", "cookie2"})


@final
@frozen
class Outgoing:
    """`headers` have small names. `secrets` are the names of those that another host must not see."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    body: bytes | None
    secrets: frozenset[str]


def header_problem(name: str, value: str) -> str:
    """What is wrong with a header, or nothing."""
    if not _NAME.fullmatch(name):
        return f"{name!r} is no name of a header"
    return "" if _VALUE.fullmatch(value) else f"the value of header {name} has control characters"


def outgoing(
    url: str, token: tuple[str, str] | None, operation: str, metadata: Mapping[str, str], data: bytes
) -> Outgoing:
    """`token` is a header and its value. Raises `InvalidArgument`."""
    if operation not in OPERATIONS:
        raise InvalidArgument(f"invalid operation: {operation}")
    method = "POST" if operation == "create" else operation.upper()
    body = data if method in _WITH_BODY else None
    target = _target(url, metadata.get("path", ""))
    headers = {"accept": _JSON, "user-agent": "meshnode"}
    if body is not None:
        headers["content-type"] = _JSON
    secrets = _SECRET
    if token:
        headers[token[0].lower()] = token[1]
        secrets |= {token[0].lower()}
    headers |= _headers(metadata)
    if target.userinfo:
        headers.setdefault("authorization", _basic(target.userinfo))
    return Outgoing(method, target, headers, body, secrets)


def _target(url: str, path: str) -> httpx.URL:
    if path:
        url = url.rstrip("/") + "/" + path.lstrip("/")
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidArgument(f"path: {error}") from None


def _headers(metadata: Mapping[str, str]) -> dict[str, str]:
    found = {name.lower(): value for name, value in metadata.items() if "A" <= name[:1] <= "Z"}
    for name in _TRACE:
        if metadata.get(name):
            found[name] = metadata[name]
    for name, value in found.items():
        if wrong := header_problem(name, value):
            raise InvalidArgument(wrong)
    return {name: value for name, value in found.items() if name not in _OWN}


def _basic(userinfo: bytes) -> str:
    user, _, password = userinfo.decode("ascii").partition(":")
    pair = f"{unquote(user)}:{unquote(password)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def following(request: Outgoing, status: int, location: str | None) -> Outgoing | None:
    """The request that a redirect asks for, or None where the answer is final.

    The rules are those of Go's client, but that the security token, too, stays with the host it is for.
    """
    if status not in (301, 302, 303, 307, 308) or not location:
        return None
    try:
        url = request.url.join(location)
    except httpx.InvalidURL:
        return None
    if url.scheme not in ("http", "https") or not url.host:
        return None
    headers = dict(request.headers)
    method, body = request.method, request.body
    if status in (301, 302, 303) and method not in ("GET", "HEAD"):
        method, body = "GET", None
    if body is None:
        headers.pop("content-type", None)
    if not _same_party(request.url, url):
        headers = {name: value for name, value in headers.items() if name not in request.secrets}
    return attrs.evolve(request, method=method, url=url, headers=headers, body=body)


def _same_party(old: httpx.URL, new: httpx.URL) -> bool:
    """The host itself or one below it, and not in the clear where it was encrypted."""
    if old.scheme == "https" and new.scheme != "https":
        return False
    return new.host == old.host or new.host.endswith("." + old.host)
