"""The resolver: two questions to a DNS server per lookup."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, final

import dns.exception
import dns.resolver
import trio
from dns.asyncresolver import Resolver
from dns.nameserver import Do53Nameserver
from dns.rdatatype import RdataType

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode.interfaces import Instance
from meshnode_nameresolution_kubernetes._options import KubernetesOptions
from meshnode_nameresolution_kubernetes._template import Template, service_name

__all__ = ["KubernetesResolver", "make_dns"]

_USUAL_PORT: Final = 50002
"""Of the internal server of every daprd in a cluster."""


def make_dns(options: KubernetesOptions) -> Resolver:
    """Reads the system's settings where none are given, so it is called in a thread."""
    try:
        resolver = Resolver(configure=not options.servers)
    except dns.resolver.NoResolverConfiguration as error:
        raise ComponentError(f"the system names no DNS server: {error}") from error
    if options.servers:
        resolver.nameservers = [Do53Nameserver(host, port) for host, port in options.servers]
    return resolver


@final
class KubernetesResolver:
    """Fulfils `NameResolver`."""

    max_age: Final = 5.0
    """As long as Kubernetes' DNS lets its own answers live. A connection that fails is looked up at once."""

    def __init__(self, options: KubernetesOptions, resolver: Resolver) -> None:
        self._options = options
        self._dns = resolver
        self._template = Template.parse(options.template) if options.template else None
        self._port = options.port or _USUAL_PORT

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        """Nothing is to be done: whoever made the service made the cluster's DNS know it."""
        port = instance.address.rpartition(":")[2]
        if not self._options.port and port.isascii() and port.isdecimal():
            self._port = int(port)
        yield

    async def resolve(self, app_id: str, namespace: str) -> tuple[str, ...]:
        if self._template is None:
            host, port = service_name(app_id, namespace, self._options.cluster_domain), self._port
        else:
            host, port = self._template.filled(app_id, namespace, self._port)
        found = sorted({_joined(address, port) for address in await self._addresses(host)})
        return tuple(found)

    async def _addresses(self, host: str) -> list[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        found: list[str] = []
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:
            for kind in (RdataType.A, RdataType.AAAA):
                nursery.start_soon(self._ask, host, kind, found, failures)
        if failures and not found:
            raise ComponentUnavailable(
                f"failed to resolve address for '{host}': {failures[0]}"
            ) from failures[0]
        return found

    async def _ask(self, host: str, kind: RdataType, found: list[str], failures: list[Exception]) -> None:
        """What is answered, or why nothing is. What can be no name is nobody's."""
        try:
            # A name of the user's own may be meant within the system's domains, as Go's resolver takes it.
            answer = await self._dns.resolve(host, kind, search=self._template is not None)
        except (dns.resolver.NoNameservers, dns.exception.Timeout, OSError) as error:
            failures.append(error)
        except (dns.exception.DNSException, UnicodeError):
            return
        else:
            found.extend(str(record) for record in answer)


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
