"""The metadata fields of `state.redis`, with Dapr's names and defaults."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode.interfaces import option
from meshnode_redis._options import UNUSED, ConnectionOptions

__all__ = ["Options"]


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `state.redis`."""

    ttl_in_seconds: int | None = option(
        "ttlInSeconds", "Time to live of values that are saved without one; -1 or 0: none.", default=None
    )
    query_indexes: str = option(
        "queryIndexes", "Accepted with a warning: this driver does not offer queries.", default=""
    )
    redeliver_interval: str = option("redeliverInterval", UNUSED, default="")
    processing_timeout: str = option("processingTimeout", UNUSED, default="")
