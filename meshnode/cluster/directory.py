"""The answers of a name resolver, kept for as long as it allows.

A lookup costs a query of a database or the network, so an answer is reused for the resolver's `max_age`,
callers that ask for the same name at once share one query, and a connection that fails drops the answer it
came from. That nobody is there is never remembered: an application that starts is found by the next call.

No task runs here: a query belongs to the caller who came first, and when that caller is cancelled the next
one asks.

May import meshnode.interfaces and meshnode.errors.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

import trio
from attrs import frozen

from meshnode.errors import ComponentError
from meshnode.interfaces import NameResolver

__all__ = ["Directory", "LookupFailed"]

Name = tuple[str, str]

CAPACITY: Final = 4096


class LookupFailed(ComponentError):
    """The name resolver could not answer; the message is its own."""


@frozen
class _Answer:
    addresses: tuple[str, ...]
    expires: float


@final
class _Query:
    """A question under way, which others wait for. `done` without a result means that whoever asked was
    cancelled.
    """

    __slots__ = ("addresses", "done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.addresses: tuple[str, ...] | None = None
        self.error: Exception | None = None


@final
class Directory:
    """Addresses by app id and namespace, at most `capacity` names at a time."""

    def __init__(self, resolver: NameResolver, *, capacity: int = CAPACITY) -> None:
        self._resolver = resolver
        self._capacity = capacity
        self._answers: OrderedDict[Name, _Answer] = OrderedDict()  # least recently asked first
        self._queries: dict[Name, _Query] = {}

    def cached(self, app_id: str, namespace: str) -> tuple[str, ...] | None:
        """What is known without asking; None when that is nothing, or too old. The same tuple as long as it
        holds.
        """
        answer = self._answers.get((app_id, namespace))
        if answer is None or answer.expires <= trio.current_time():
            return None
        self._answers.move_to_end((app_id, namespace))
        return answer.addresses

    async def lookup(self, app_id: str, namespace: str) -> tuple[str, ...]:
        """All live addresses, empty when there is none. Raises `LookupFailed`. Does not checkpoint when the
        answer is known.
        """
        name = app_id, namespace
        while (addresses := self.cached(*name)) is None:
            query = self._queries.get(name)
            if query is None:
                return await self._ask(name)
            await query.done.wait()
            if query.error is not None:
                raise LookupFailed(str(query.error)) from query.error
            if query.addresses is not None:
                return query.addresses
        return addresses

    def invalidate(self, app_id: str, address: str, namespace: str = "default") -> None:
        """A connection to this address failed: the answer that contained it is not used again."""
        answer = self._answers.get((app_id, namespace))
        if answer is not None and address in answer.addresses:
            del self._answers[app_id, namespace]

    async def _ask(self, name: Name) -> tuple[str, ...]:
        query = self._queries[name] = _Query()
        asked = trio.current_time()
        try:
            query.addresses = tuple(await self._resolver.resolve(*name))
        except Exception as error:
            query.error = error
            raise LookupFailed(str(error)) from error
        finally:
            del self._queries[name]
            query.done.set()
        self._remember(name, _Answer(query.addresses, asked + self._resolver.max_age))
        return query.addresses

    def _remember(self, name: Name, answer: _Answer) -> None:
        if not answer.addresses or answer.expires <= trio.current_time():
            self._answers.pop(name, None)
            return
        self._answers[name] = answer
        self._answers.move_to_end(name)
        while len(self._answers) > self._capacity:
            self._answers.popitem(last=False)
