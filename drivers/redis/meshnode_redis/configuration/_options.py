"""The metadata fields of `configuration.redis`, with Dapr's names and defaults."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode.interfaces import option
from meshnode_redis._options import UNUSED, ConnectionOptions, seconds

__all__ = ["Options"]

_USUAL = 3.0


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `configuration.redis`."""

    redeliver_interval: str = option("redeliverInterval", UNUSED, default="")
    processing_timeout: str = option("processingTimeout", UNUSED, default="")

    @property
    def beat(self) -> float:
        """Seconds after which a silent connection is asked whether it lives."""
        given = seconds(self.read_timeout)
        return given if given > 0 else _USUAL
