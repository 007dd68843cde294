"""The metadata fields of `state.mine`."""

from __future__ import annotations

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

    def __attrs_post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if not (host and port.isdecimal()):
            message = f'"{self.address}" is no address'
            raise ConfigError([Problem(message, field="address", remedy="write it like localhost:7000")])
