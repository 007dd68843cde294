"""A subscription to configuration: one stream of changes, over one opened store after the other where the
component is opened anew.

The new watch begins before the old one is told to stop, so no change falls between them. Until the old one
has ended the new one's changes wait, and one that both have seen is told once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import final

import trio

from meshnode.interfaces import ConfigurationItem, ConfigurationStore
from meshnode.transport import Stream
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["ConfigurationStream", "Subscription", "Watch", "wire_item"]

ConfigurationStream = Stream[runtime.SubscribeConfigurationRequest, runtime.SubscribeConfigurationResponse]


@final
class Watch:
    """A watch of one opened store that takes the place of the one `before` it."""

    def __init__(self, driver: ConfigurationStore, before: Watch | None) -> None:
        self.driver = driver
        self.before = before
        self.stop = trio.Event()
        self.ended = trio.Event()
        self.told: dict[str, deque[ConfigurationItem | None]] | None = None
        """What has been told since its successor began, by key."""


@final
class Subscription:
    """One stream of changes. `stop` is for it to end, `moved` for its store having been opened anew."""

    def __init__(self, id: str, store: str, stream: ConfigurationStream) -> None:  # noqa: A002
        self.id = id
        self.store = store
        self.stop = trio.Event()
        self.moved = trio.Event()
        self.watch: Watch | None = None
        self._stream = stream
        self._confirmed = trio.Event()

    async def confirm(self) -> None:
        """The first message; no change goes before it."""
        await self._stream.send_message(runtime.SubscribeConfigurationResponse(id=self.id))
        self._confirmed.set()

    async def keep(
        self,
        watch: Watch,
        keys: Sequence[str],
        metadata: Mapping[str, str],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Run a watch until its stop."""
        before = watch.before
        if before is not None and before.told is None:
            before.told = {}
        try:
            await watch.driver.watch(
                keys, metadata, partial(self._tell, watch), watch.stop, task_status=task_status
            )
        finally:
            watch.before = None
            watch.ended.set()

    def take_over(self, watch: Watch) -> None:
        """Go by this watch, which has started, and let the one before it end."""
        self.watch = watch
        if watch.before is not None:
            watch.before.stop.set()

    def end(self) -> None:
        if self.watch is not None:
            self.watch.stop.set()

    async def _tell(self, watch: Watch, changes: Mapping[str, ConfigurationItem | None]) -> None:
        await self._confirmed.wait()
        if watch.before is not None:
            await watch.before.ended.wait()
            changes = _not_told(changes, watch.before.told or {})
        if not changes:
            return
        items = {key: wire_item(change) for key, change in changes.items()}
        await self._stream.send_message(runtime.SubscribeConfigurationResponse(id=self.id, items=items))
        if watch.told is not None:
            for key, change in changes.items():
                watch.told.setdefault(key, deque()).append(change)


def _not_told(
    changes: Mapping[str, ConfigurationItem | None], told: dict[str, deque[ConfigurationItem | None]]
) -> Mapping[str, ConfigurationItem | None]:
    """Without those that the watch before has told. Its list for a key ends with the first one it has not
    seen: what comes after that is new whatever it looks like.
    """
    fresh = {}
    for key, change in changes.items():
        seen = told.get(key)
        if seen is not None and change in seen:
            while seen.popleft() != change:
                pass
        else:
            told.pop(key, None)
            fresh[key] = change
    return fresh


def wire_item(item: ConfigurationItem | None) -> common.ConfigurationItem:
    """What is gone goes out as an item without anything, as in Dapr."""
    if item is None:
        return common.ConfigurationItem()
    return common.ConfigurationItem(value=item.value, version=item.version, metadata=dict(item.metadata))
