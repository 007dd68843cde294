"""The component's metadata. Dapr's mdns takes none; these are for machines where its choices do not fit."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["MdnsOptions"]


@frozen
class MdnsOptions:
    interfaces: tuple[str, ...] = option(
        "interfaces",
        "IPv4 addresses of the network interfaces to use, as a list or separated by commas; empty for all.",
        default=(),
    )
    browse_timeout: timedelta = option(
        "browseTimeout",
        "How long to wait for the first answer about an app id that has not been seen.",
        default=timedelta(seconds=1),
    )

    def __attrs_post_init__(self) -> None:
        problems = [
            Problem(f"{text!r} is no IPv4 address", field="interfaces", remedy="e.g. 192.0.2.7,127.0.0.1")
            for text in self.interfaces
            if not _is_ipv4(text)
        ]
        if self.browse_timeout <= timedelta(0):
            problems.append(Problem("must be positive", field="browseTimeout", remedy="e.g. 1s"))
        if problems:
            raise ConfigError(problems)


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
