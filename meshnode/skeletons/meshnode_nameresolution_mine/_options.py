"""The metadata fields of `nameresolution.mine`."""

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
    """What stands in `nameResolution.configuration` of a Configuration. A password would be
    `option(..., secret=True)`.
    """

    address: str = option("address", "Where the server is, as host:port.")
    max_age: timedelta = option(
        "maxAge", "How long an answer may be used again.", default=timedelta(seconds=1)
    )

    def __attrs_post_init__(self) -> None:
        problems = []
        host, _, port = self.address.rpartition(":")
        if not (host and port.isdecimal()):
            message = f'"{self.address}" is no address'
            problems.append(Problem(message, field="address", remedy="write it like localhost:7000"))
        if self.max_age < timedelta(0):
            problems.append(Problem("must not be negative", field="maxAge"))
        if problems:
            raise ConfigError(problems)
