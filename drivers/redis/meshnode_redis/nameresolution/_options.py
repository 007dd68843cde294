"""The metadata fields of `nameresolution.redis`."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode.errors import Problem
from meshnode.interfaces import option
from meshnode_redis._options import ConnectionOptions, bad_durations, seconds

__all__ = ["Options"]

_SHORTEST = 1.0


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `nameresolution.redis`."""

    ttl: str = option(
        "ttl",
        "How long a registration holds that is not renewed: a node that was killed is found for so long."
        " Nodes renew theirs three times in it.",
        default="10s",
    )

    def problems(self) -> list[Problem]:
        found = super().problems()
        wrong = bad_durations({"ttl": self.ttl})
        if not wrong and self.lifetime < _SHORTEST:
            wrong = [Problem("must be at least 1s", field="ttl", remedy="a bare number is in milliseconds")]
        return found + wrong

    @property
    def lifetime(self) -> float:
        """In seconds."""
        return seconds(self.ttl)
