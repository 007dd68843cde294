"""How long to wait before the next attempt. Pure: no clock, no sleep; elapsed time and dice are passed in.

The arithmetic is that of Dapr (its retry kit over cenkalti/backoff): a constant interval, or one that grows
by `multiplier` up to `max_interval` and is spread by `randomization_factor` either way. The cap applies
before the spread, so a wait can exceed `max_interval` by that factor. May import `meshnode.config` only.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, final

from attrs import evolve, frozen

from meshnode.config.backoff import Backoff as Kind

if TYPE_CHECKING:
    from meshnode.config.resiliency import RetryPolicy

__all__ = ["FOREVER", "Backoff", "BackoffSettings"]

FOREVER = -1


@frozen
class BackoffSettings:
    """One retry policy in full. The defaults are Dapr's; only some of them can be set in a resource.

    `max_retries` counts the attempts after the first one, `FOREVER` for no limit. `max_elapsed` 0 means no
    limit; it bounds exponential policies only.
    """

    kind: Kind = Kind.CONSTANT
    duration: float = 5.0
    initial_interval: float = 0.5
    randomization_factor: float = 0.5
    multiplier: float = 1.5
    max_interval: float = 60.0
    max_elapsed: float = 900.0
    max_retries: int = FOREVER

    @property
    def unlimited(self) -> bool:
        return self.max_retries < 0

    @classmethod
    def from_policy(cls, policy: RetryPolicy) -> BackoffSettings:
        """The settings behind a `retries` entry.

        Dapr lets an exponential policy end after 15 minutes even where it says `maxRetries: -1`; its
        documentation calls that value unlimited, and so do we: the elapsed limit holds for limited policies
        only.
        """
        settings = cls(
            kind=policy.policy,
            duration=policy.duration,
            max_interval=policy.max_interval,
            max_retries=max(policy.max_retries, FOREVER),
        )
        return evolve(settings, max_elapsed=0.0) if settings.unlimited else settings


@final
class Backoff:
    """The waits of one operation, in order. Not reusable: every operation starts its own."""

    __slots__ = ("_interval", "_retries", "_rng", "_settings")

    def __init__(self, settings: BackoffSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._retries = 0
        self._interval = settings.initial_interval

    def next(self, elapsed: float) -> float | None:
        """Seconds to wait before another attempt, None when there is to be none.

        `elapsed` is the time since the operation began. Every call that returns a wait uses up one retry.
        """
        settings = self._settings
        if not settings.unlimited and self._retries >= settings.max_retries:
            return None
        if settings.kind is Kind.CONSTANT:
            wait = settings.duration
        else:
            wait = self._spread()
            if settings.max_elapsed and elapsed + wait > settings.max_elapsed:
                return None
            self._grow()
        self._retries += 1
        return wait

    def _spread(self) -> float:
        factor = self._settings.randomization_factor
        if factor == 0:
            return self._interval
        return self._interval * (1 - factor + 2 * factor * self._rng.random())

    def _grow(self) -> None:
        # Compared by division, so that a huge interval cannot overflow on its way to the cap.
        settings = self._settings
        if self._interval >= settings.max_interval / settings.multiplier:
            self._interval = settings.max_interval
        else:
            self._interval *= settings.multiplier
