"""One other node as the pool sees it: its channel, how busy it is, how it fared last.

Invariant: a peer that `until_unwanted` has let go is taken out of the pool before anything else runs, so
nobody is handed a channel that is about to close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from meshnode.interfaces import Instance

if TYPE_CHECKING:
    from meshnode.transport import Channel

__all__ = ["Peer"]

GRACE: Final = 1.0
"""Seconds for which a peer that was just picked counts as busy though its call has not begun."""


@final
class Peer:
    """A running node of some app id, as `Peers.pick` hands it out. `calls` counts
    those inside `Peers.watch`.
    """

    __slots__ = (
        "_channel",
        "_error",
        "_opened",
        "_retired",
        "calls",
        "failed_until",
        "instance",
        "last_used",
    )

    def __init__(self, instance: Instance, now: float) -> None:
        self.instance: Final = instance
        self.calls = 0
        self.last_used = now
        self.failed_until = 0.0
        self._channel: Channel | None = None
        self._error: Exception | None = None
        self._opened = trio.Event()
        self._retired = trio.Event()

    def __repr__(self) -> str:
        return f"<Peer {self.instance.app_id} at {self.instance.address}, {self.load} calls>"

    @property
    def channel(self) -> Channel:
        """Open for as long as somebody uses it."""
        assert self._channel is not None, "Peers.pick hands out open peers only"
        return self._channel

    @property
    def is_open(self) -> bool:
        return self._channel is not None

    @property
    def load(self) -> int:
        """Calls in flight, with or without `watch`."""
        return self.calls if self._channel is None else max(self.calls, self._channel.in_flight)

    def is_down(self, now: float) -> bool:
        """Passed over while there is another: it failed a moment ago, or its connection cannot be made."""
        return self.failed_until > now or self.cannot_connect

    @property
    def cannot_connect(self) -> bool:
        return self._channel is not None and self._channel.state.name == "TRANSIENT_FAILURE"

    async def opened(self) -> Exception | None:
        """Waits for the channel; gives the error if it cannot be made. Does not
        checkpoint when it is there.
        """
        if self._channel is None:
            await self._opened.wait()
        return self._error

    def open(self, channel: Channel) -> None:
        self._channel = channel
        self._opened.set()

    def fail(self, error: Exception) -> None:
        """No channel can be made. After `open` it changes nothing: calls see the channel's own errors."""
        if not self._opened.is_set():
            self._error = error
            self._opened.set()

    def retire(self) -> None:
        """No new calls; `until_unwanted` lets it go after the last one."""
        self._retired.set()

    async def until_unwanted(self, idle: float) -> None:
        """Returns when it has been without a call for `idle` seconds, or is retired
        and its calls have ended.
        """
        while True:
            now = trio.current_time()
            patience = GRACE if self._retired.is_set() else idle
            due = (now if self.load else self.last_used) + patience
            if due <= now:
                return
            if self._retired.is_set():
                await trio.sleep_until(due)
            else:
                with trio.move_on_at(due):
                    await self._retired.wait()
