"""Metadata fields that several types have."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import httpx

from meshnode.errors import Problem

__all__ = ["MAX_TOKENS_DOC", "RESPONSE_CACHE_DOC", "endpoint_problems", "key_problems", "ttl_problems"]


RESPONSE_CACHE_DOC = "How long an answer is kept for requests that are the same; without it none is."
MAX_TOKENS_DOC = "The most tokens of an answer, where the request does not say."


def endpoint_problems(endpoint: str) -> Iterator[Problem]:
    """What is wrong with an endpoint that is given."""
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL as error:
        yield Problem(f"is no URL: {error}", field="endpoint")
        return
    if url.scheme not in ("http", "https") or not url.host:
        yield Problem("is no http or https URL with a host", field="endpoint")
    elif url.userinfo:
        yield Problem("must not hold a user or password", field="endpoint", remedy="use key")


def key_problems(key: str) -> Iterator[Problem]:
    """A key that no header can carry must be found out here: the error of sending it would show it."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        remedy = "often a newline at the end of a file"
        yield Problem("must be printable ASCII without spaces", field="key", remedy=remedy)


def ttl_problems(ttl: timedelta | None) -> Iterator[Problem]:
    if ttl is not None and ttl <= timedelta(0):
        yield Problem("must be above 0", field="responseCacheTTL")
