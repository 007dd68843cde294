"""The metadata fields of `pubsub.mine`."""

from __future__ import annotations

from datetime import timedelta
from typing import final

from attrs import frozen
from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["Options"]


@final
@frozen
class Options:
    """What stands in the component's metadata. A password would be `option(..., secret=True)`."""

    address: str = option("address", "Where the server is, as host:port.")
    redeliver_interval: timedelta = option(
        "redeliverInterval", "Pause before what failed is delivered again.", default=timedelta(seconds=5)
    )
    consumer_id: str = option("consumerID", "Name of the consumer group; the app id if empty.", default="")
    concurrency: int = option("concurrency", "Deliveries side by side.", default=10)

    def __attrs_post_init__(self) -> None:
        problems = []
        host, _, port = self.address.rpartition(":")
        if not (host and port.isdecimal()):
            message = f'"{self.address}" is no address'
            problems.append(Problem(message, field="address", remedy="write it like localhost:7000"))
        if self.redeliver_interval < timedelta(0):
            problems.append(Problem("must not be negative", field="redeliverInterval"))
        if self.concurrency < 1:
            problems.append(Problem("must be at least 1", field="concurrency"))
        if problems:
            raise ConfigError(problems)
