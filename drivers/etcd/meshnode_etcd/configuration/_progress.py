"""What a watch has told, and from where it goes on. No I/O.

etcd keeps a history of revisions and tells a watch of all from the one it names. So a watch that was cut off
goes on where it was, and whatever comes twice is known by its revision. Only where the history has been
compacted away meanwhile the keys are read, and what differs from what was told last is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

from attrs import frozen

from meshnode.interfaces import ConfigurationItem
from meshnode_etcd._keys import Keys
from meshnode_etcd.wire.etcdserverpb import (
    EventEventType,
    KeyValue,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

__all__ = ["Changes", "Progress", "Span", "item", "spans"]

Changes = Mapping[str, ConfigurationItem | None]


@final
@frozen
class Span:
    """What one watch watches: a key or, where `end` is not empty, all from `key` to before it."""

    key: bytes
    end: bytes = b""


def spans(keys: Keys, names: Sequence[str]) -> list[Span]:
    """All below the prefix, where nothing is named."""
    return [Span(keys.of(name)) for name in dict.fromkeys(names)] or [Span(keys.first, keys.end)]


def item(kv: KeyValue) -> ConfigurationItem:
    """The version is the revision in which the key was last written."""
    metadata = {"createRevision": str(kv.create_revision), "writes": str(kv.version)}
    return ConfigurationItem(kv.value.decode("utf-8", "replace"), str(kv.mod_revision), metadata)


@final
class Progress:
    """Of the watches of some spans; a watch has the number of its span, from 1."""

    def __init__(self, keys: Keys, watched: Sequence[Span]) -> None:
        self._keys = keys
        self._spans = tuple(watched)
        self._next = [0] * len(watched)
        self._told: dict[str, int] = {}
        """The revision of each key that is there, as it was told last."""
        self.compacted = False
        """The history is gone: `read` has to be called with what is there."""

    @property
    def spans(self) -> Sequence[Span]:
        return self._spans

    def requests(self) -> list[WatchRequest]:
        """What a new stream begins with."""
        return [
            WatchRequest(
                create_request=WatchCreateRequest(
                    key=span.key, range_end=span.end, start_revision=start, watch_id=number
                )
            )
            for number, (span, start) in enumerate(zip(self._spans, self._next, strict=True), 1)
        ]

    def read(self, found: Sequence[tuple[Sequence[KeyValue], int]]) -> Changes:
        """What each span holds, and in which revision: the difference from what was told."""
        self.compacted = False
        changes: dict[str, ConfigurationItem | None] = {}
        for position, (kvs, revision) in enumerate(found):
            self._next[position] = revision + 1
            there = dict(self._named(kvs))
            for name in [one for one in self._mine(self._spans[position]) if one not in there]:
                del self._told[name]
                changes[name] = None
            for name, kv in there.items():
                if self._told.get(name) != kv.mod_revision:
                    self._told[name] = kv.mod_revision
                    changes[name] = item(kv)
        return changes

    def take(self, response: WatchResponse) -> Iterator[Changes]:
        """What is told, in order; a key comes once in each."""
        if response.compact_revision:
            self.compacted = True
            return
        position = response.watch_id - 1
        if not 0 <= position < len(self._spans):
            return
        changes: dict[str, ConfigurationItem | None] = {}
        for event in response.events:
            kv = event.kv
            name = self._keys.name(kv.key) if kv is not None else None
            if kv is None or name is None or kv.mod_revision < self._next[position]:
                continue
            if name in changes:
                yield changes
                changes = {}
            if event.type is EventEventType.DELETE:
                self._told.pop(name, None)
                changes[name] = None
            else:
                self._told[name] = kv.mod_revision
                changes[name] = item(kv)
        last = response.events[-1].kv if response.events else None
        if last is not None:
            self._next[position] = max(self._next[position], last.mod_revision + 1)
        if changes:
            yield changes

    def _named(self, kvs: Sequence[KeyValue]) -> Iterator[tuple[str, KeyValue]]:
        for kv in kvs:
            name = self._keys.name(kv.key)
            if name is not None:
                yield name, kv

    def _mine(self, span: Span) -> list[str]:
        """Keys of the span that are there, as was told. One that is no single key is the only one."""
        if span.end:
            return list(self._told)
        name = self._keys.name(span.key)
        return [name] if name in self._told and name is not None else []
