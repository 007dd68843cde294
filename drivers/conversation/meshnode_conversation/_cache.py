"""Answers kept for requests that are the same: bounded in number, length and time."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any, final

import attrs
import trio

from meshnode.interfaces import Conversation, ConverseOutput, ConverseRequest

__all__ = ["Cached", "cached"]

_MOST_ANSWERS = 1000
_LONGEST = 1 << 16
"""Characters of an answer that is kept; together they stay within some 64 million."""


@final
class Cached:
    """A `Conversation` that asks another one only for what it does not know. Failures are not kept."""

    def __init__(self, inner: Conversation, ttl: float, most: int = _MOST_ANSWERS) -> None:
        self._inner = inner
        self._ttl = ttl
        self._most = most
        self._answers: OrderedDict[bytes, tuple[float, Sequence[ConverseOutput]]] = OrderedDict()

    async def converse(self, request: ConverseRequest) -> Sequence[ConverseOutput]:
        key = _fingerprint(request)
        known = self._answers.get(key)
        if known is not None and known[0] > trio.current_time():
            await trio.lowlevel.checkpoint()
            return known[1]
        answer = await self._inner.converse(request)
        if _length(answer) <= _LONGEST:
            self._keep(key, answer)
        return answer

    def _keep(self, key: bytes, answer: Sequence[ConverseOutput]) -> None:
        """The oldest goes first; with one lifetime for all, that is the one that ends first."""
        self._answers.pop(key, None)
        while len(self._answers) >= self._most:
            self._answers.popitem(last=False)
        self._answers[key] = (trio.current_time() + self._ttl, answer)


def cached(inner: Conversation, ttl: timedelta | None) -> Conversation:
    """The same where no lifetime is given."""
    return inner if ttl is None else Cached(inner, ttl.total_seconds())


def _length(answer: Sequence[ConverseOutput]) -> int:
    choices = [choice for output in answer for choice in output.choices]
    calls = [call for choice in choices for call in choice.tool_calls]
    return sum(len(choice.text) for choice in choices) + sum(len(call.arguments) for call in calls)


def _fingerprint(request: ConverseRequest) -> bytes:
    """What was said is not kept in memory for being asked again, only its digest."""
    text = json.dumps(attrs.asdict(request), default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)
