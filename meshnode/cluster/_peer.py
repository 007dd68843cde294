"""One other node as the pool sees it: its channel, how busy it is, how it fared last.

Invariant: a peer that `until_unwanted` has let go is taken out of the pool before anything else runs, so
nobody is handed a channel that is about to close.
"""

from __future__ import annotations

from typing import Final, final

import trio

from meshnode.interfaces import Instance
from meshnode.transport import Channel, ChannelState

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
        "_nap",
        "_opened",
        "_retired",
        "_suspect",
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
        self._suspect = False
        self._retired = False
        self._channel: Channel | None = None
        self._error: Exception | None = None
        self._opened = trio.Event()
        self._nap = trio.CancelScope()

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

    @property
    def cannot_connect(self) -> bool:
        """The channel fails calls at once, for as long as its own backoff says."""
        return self._channel is not None and self._channel.state is ChannelState.TRANSIENT_FAILURE

    def is_down(self, now: float) -> bool:
        """Passed over while there is another: it failed a moment ago, or failed and
        has not connected since.
        """
        if self._suspect:
            return self.failed_until > now or self.channel.state is not ChannelState.READY
        return self.cannot_connect

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

    def cannot_open(self, error: Exception) -> None:
        """No channel can be made. After `open` it changes nothing: calls see the channel's own errors."""
        if not self._opened.is_set():
            self._error = error
            self._opened.set()

    def failed(self, until: float) -> None:
        """Its connection failed under a call. From now on its own task tries to connect, so that no call has
        to.
        """
        self._suspect = True
        self.failed_until = until
        self._nap.cancel()

    def recovered(self) -> None:
        self._suspect = False
        self.failed_until = 0.0

    def retire(self) -> None:
        """No new calls; `until_unwanted` lets it go after the last one."""
        self._retired = True
        self._nap.cancel()

    async def until_unwanted(self, idle: float) -> None:
        """Returns when it was without a call for `idle` seconds, or is retired and its calls have ended."""
        while True:
            now = trio.current_time()
            patience = GRACE if self._retired else idle
            due = (now if self.load else self.last_used) + patience
            if due <= now:
                return
            with trio.CancelScope(deadline=due) as self._nap:
                if self._suspect and not self._retired:
                    await trio.sleep_until(self.failed_until)
                    await self.channel.wait_ready()
                    self.recovered()
                else:
                    await trio.sleep_forever()
