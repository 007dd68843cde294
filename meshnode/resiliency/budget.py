"""The retry budget: retries are allowed as a share of recent traffic. Pure: `now` is passed in.

Without one, an outage is multiplied: every caller of a chain of three services with three retries each
sends up to 64 requests where one was meant. With a share of 0.2, retries never add more than a fifth to
what was asked for, plus a small reserve so that a quiet target can be retried at all.

Traffic and retries are counted in slices of a second over a sliding window, so that a budget earned long
ago cannot be spent in one go. Imports nothing from meshnode.
"""

from __future__ import annotations

from collections import deque
from typing import Final, final

__all__ = ["RESERVE", "WINDOW", "RetryBudget"]

WINDOW: Final = 10
"""Seconds of traffic that count as recent."""

RESERVE: Final = 10
"""Retries per window that are allowed whatever the traffic: one a second."""


@final
class RetryBudget:
    """One target's budget, shared by all its callers. `share` is between 0 and 1."""

    __slots__ = ("_requests", "_retries", "_slices", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self._slices: deque[list[int]] = deque()  # [second, requests, retries], oldest first
        self._requests = 0
        self._retries = 0

    def deposit(self, now: float) -> None:
        """A request arrived (not a retry of one)."""
        self._slice(now)[1] += 1
        self._requests += 1

    def withdraw(self, now: float) -> bool:
        """Whether one more retry may start; if so, it is counted."""
        current = self._slice(now)
        if self._retries + 1 > self.share * self._requests + RESERVE:
            return False
        current[2] += 1
        self._retries += 1
        return True

    def available(self, now: float) -> int:
        """How many retries could start at this moment."""
        self._slice(now)
        return max(int(self.share * self._requests + RESERVE) - self._retries, 0)

    def _slice(self, now: float) -> list[int]:
        """The slice of `now`, after dropping those that have left the window."""
        second = int(now)
        slices = self._slices
        while slices and slices[0][0] <= second - WINDOW:
            _, requests, retries = slices.popleft()
            self._requests -= requests
            self._retries -= retries
        if not slices or slices[-1][0] < second:
            slices.append([second, 0, 0])
        return slices[-1]
