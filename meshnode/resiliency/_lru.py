"""A bounded mapping that forgets what was used longest ago. Imports nothing from meshnode."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar, final

__all__ = ["Lru"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@final
class Lru(Generic[K, V]):
    __slots__ = ("_items", "_size")

    def __init__(self, size: int) -> None:
        self._size = max(size, 1)
        self._items: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K) -> V | None:
        """The value of `key`, which thereby becomes the most recently used."""
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._size:
            self._items.popitem(last=False)

    def values(self) -> Iterator[V]:
        return iter(self._items.values())
