"""What one request did under its policy: attempts, refusals, waits.

`scope.run` writes it, the admin API and telemetry read it, at any moment of the request's life; cheap enough
to keep for every request with a policy. Pure; imports nothing from meshnode.
"""

from __future__ import annotations

from typing import Final, final

from attrs import define, field
from grpclib.const import Status

__all__ = ["KEPT", "Attempt", "RequestView"]

KEPT: Final = 16
"""Attempts that a view holds; of a longer series the latest are kept."""


@final
@define
class Attempt:
    """One try. Times are the trio clock's; `ended` and `code` are None while it runs.

    `refused` tells that a breaker did not let it out; `waited` is the pause that preceded it.
    """

    number: int
    started: float
    waited: float = 0.0
    ended: float | None = None
    code: Status | None = None
    message: str = ""
    refused: bool = False


@final
@define
class RequestView:
    """The attempts of one operation. A request with several operations has one view each."""

    target: str = ""
    policy: str = ""
    attempts: list[Attempt] = field(factory=list)
    total: int = 0
    waiting_until: float | None = None
    waited: float = 0.0

    def begin(self, now: float) -> Attempt:
        """Open the next attempt."""
        self.total += 1
        attempt = Attempt(self.total, now, self.waited)
        if len(self.attempts) == KEPT:
            del self.attempts[0]
        self.attempts.append(attempt)
        self.waiting_until = None
        self.waited = 0.0
        return attempt

    def wait(self, now: float, seconds: float) -> None:
        """A pause begins; it is credited to the attempt that follows."""
        self.waiting_until = now + seconds
        self.waited += seconds

    @property
    def forgotten(self) -> int:
        """Attempts that are no longer held."""
        return self.total - len(self.attempts)
