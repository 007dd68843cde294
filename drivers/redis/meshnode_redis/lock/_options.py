"""The metadata fields of `lock.redis`, with Dapr's names and defaults."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode.errors import Problem
from meshnode.interfaces import option
from meshnode_redis._options import UNUSED, ConnectionOptions

__all__ = ["Options"]

_REMEDY = "use a single server with appendonly yes and appendfsync always"


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `lock.redis`.

    What fails over is refused: a replica that takes over may not have heard of a lock, and gives it away
    twice.
    """

    redeliver_interval: str = option("redeliverInterval", UNUSED, default="")
    processing_timeout: str = option("processingTimeout", UNUSED, default="")

    def problems(self) -> list[Problem]:
        found = super().problems()
        if self.failover:
            found.append(Problem("locks do not survive a failover", field="failover", remedy=_REMEDY))
        if self.type == "cluster":
            found.append(Problem("locks do not survive a failover", field="redisType", remedy=_REMEDY))
        return found
