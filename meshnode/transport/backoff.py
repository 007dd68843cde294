"""gRPC's connection backoff: how long a channel waits before it dials again. Pure, apart from the dice.

https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md

Imports nothing from meshnode.
"""

from __future__ import annotations

import random

from attrs import field, frozen, validators

__all__ = ["Backoff"]

_positive = validators.gt(0.0)


@frozen(kw_only=True)
class Backoff:
    """Times in seconds."""

    initial: float = field(default=1.0, validator=_positive)
    """After the first failure."""

    multiplier: float = field(default=1.6, validator=validators.ge(1.0))

    jitter: float = field(default=0.2, validator=[validators.ge(0.0), validators.lt(1.0)])
    """Each wait differs from its nominal value by up to this share of it."""

    maximum: float = field(default=120.0, validator=_positive)

    connect: float = field(default=20.0, validator=_positive)
    """What one attempt may take, up to the server's first SETTINGS."""

    def delay(self, failures: int, rng: random.Random) -> float:
        """How long to wait after so many failures in a row (at least one)."""
        nominal = self.maximum
        if failures < 64:  # beyond that the power is of no interest, and might overflow
            nominal = min(self.maximum, self.initial * self.multiplier ** (failures - 1))
        return nominal * (1.0 + self.jitter * (2.0 * rng.random() - 1.0))
