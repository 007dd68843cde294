"""The settings of `nameresolution.kubernetes`: Dapr's, and two of our own."""

from __future__ import annotations

import ipaddress
from typing import final

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option
from meshnode_nameresolution_kubernetes._template import Template

__all__ = ["KubernetesOptions"]

_DNS_PORT = 53


@final
@frozen
class KubernetesOptions:
    """What stands below `spec.nameResolution.configuration`."""

    cluster_domain: str = option("clusterDomain", "Domain of the cluster.", default="cluster.local")
    template: str = option(
        "template",
        "Where an app id is, instead of Dapr's service for it: text with {{.ID}}, {{.Namespace}} and"
        " {{.Port}}; clusterDomain does not count then.",
        default="",
    )
    port: int = option(
        "port",
        "Port of the other nodes' internal servers; 0: that of this node's, for in a cluster all have the"
        " same.",
        default=0,
    )
    name_servers: tuple[str, ...] = option(
        "nameServers",
        "Addresses of DNS servers, with or without a port; none: those of the system.",
        default=(),
    )

    def __attrs_post_init__(self) -> None:
        problems = []
        try:
            Template.parse(self.template)
        except ValueError as error:
            problems.append(Problem(str(error), field="template"))
        if not self.cluster_domain.strip("."):
            problems.append(Problem("is empty", field="clusterDomain"))
        if not 0 <= self.port < 65536:
            problems.append(Problem(f"{self.port} is no port", field="port"))
        try:
            self.servers  # noqa: B018 - reading it is the check
        except ValueError as error:
            remedy = "for example 10.96.0.10 or 10.96.0.10:53"
            problems.append(Problem(str(error), field="nameServers", remedy=remedy))
        if problems:
            raise ConfigError(problems)

    @property
    def servers(self) -> list[tuple[str, int]]:
        return [_server(text) for text in self.name_servers]


def _server(text: str) -> tuple[str, int]:
    """An IP address with or without a port. Raises `ValueError`."""
    host, mark, port = text.rpartition(":")
    if not mark or (":" in host and not host.endswith("]")):
        host, port = text, str(_DNS_PORT)
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None
    if not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} has no port")
    return host, int(port)
