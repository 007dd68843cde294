"""The metadata fields of `bindings.redis`, with Dapr's names and defaults."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode.interfaces import option
from meshnode_redis._options import UNUSED, ConnectionOptions

__all__ = ["Options"]


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `bindings.redis`."""

    redeliver_interval: str = option("redeliverInterval", UNUSED, default="")
    processing_timeout: str = option("processingTimeout", UNUSED, default="")
