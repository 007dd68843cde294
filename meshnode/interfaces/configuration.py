"""Configuration stores: the Protocol and its value types.

Errors: `ComponentUnavailable` (worth a retry), `ConfigurationError` for the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import trio
from attrs import field, frozen

__all__ = ["ConfigurationItem", "ConfigurationStore", "Notify"]


@frozen
class ConfigurationItem:
    """One value; `version` is empty where the backend has none."""

    value: str
    version: str = ""
    metadata: Mapping[str, str] = field(factory=dict)


Notify = Callable[[Mapping[str, ConfigurationItem | None]], Awaitable[None]]
"""Takes what has changed, by key; None: the key is gone. It may take its time."""


@runtime_checkable
class ConfigurationStore(Protocol):
    """What a configuration driver yields. All methods may be called concurrently; cancelling one leaves the
    store usable.
    """

    async def get(self, keys: Sequence[str], metadata: Mapping[str, str]) -> Mapping[str, ConfigurationItem]:
        """The items of these keys, of all keys where none is named; a key that is not there is left out."""
        ...

    async def watch(
        self,
        keys: Sequence[str],
        metadata: Mapping[str, str],
        notify: Notify,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Tell of changes of these keys, of all keys where none is named, until `stop` is set or the call is
        cancelled.

        Calls `task_status.started()` when a change made from then on will be told; raises before that where
        the backend cannot be watched. Each change is told once, and the changes of a key in order; `notify`
        is awaited before the next. A value that is overwritten before it could be read need not be told. A
        lost connection is the driver's to renew; it then tells what has changed meanwhile.
        """
        ...

    async def ping(self) -> None:
        """Raises `ComponentUnavailable` when the backend does not answer."""
        ...
