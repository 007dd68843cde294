"""What goes over the wire: services as DNS records, queries, answers. Pure; zeroconf does the encoding and
parsing.

The format is that of Dapr's mdns name resolution. The service type is the bare app id in `local.`, without
the `_tcp` of DNS-SD; the first TXT string repeats the app id, and a reader looks no further than a string
that is not the app id. Ours adds `namespace=…` after it, which a daprd therefore ignores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from attrs import frozen

from meshnode_nameresolution_mdns._dns import (
    DNSAddress,
    DNSIncoming,
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSRecord,
    DNSService,
    DNSText,
)

__all__ = ["ANY", "GOODBYE", "PTR", "TTL", "Service", "announcement", "answer", "parse", "query", "type_of"]

PTR: Final = 12
ANY: Final = 255
TTL: Final = 60
"""Seconds an announcement is good for. Short beside the usual two minutes: a node
that crashed is forgotten.
"""
GOODBYE: Final = 0

_A, _TXT, _AAAA, _SRV = 1, 16, 28, 33
_IN: Final = 1
_ONLY: Final = _IN | 0x8000  # the cache-flush bit: nobody else has records of this name
_QUERY, _RESPONSE = 0x0000, 0x8400
_LONGEST_LABEL: Final = 63


@frozen
class Service:
    """An announced node. `label` is unique in the network."""

    app_id: str
    namespace: str
    label: str
    ip: IPv4Address | IPv6Address
    port: int

    @property
    def type(self) -> str:
        return type_of(self.app_id)

    @property
    def name(self) -> str:
        return f"{self.label}.{self.type}"

    @property
    def host(self) -> str:
        return f"{self.label}.local."

    @classmethod
    def at(cls, app_id: str, namespace: str, address: str, label: str) -> Service:
        """Raises ValueError for an address that DNS cannot express, or an app id too long for it."""
        host, _, port = address.rpartition(":")
        if len(app_id.encode()) > _LONGEST_LABEL:
            raise ValueError(f"an app id of more than {_LONGEST_LABEL} bytes")
        return cls(app_id, namespace, label, ip_address(host.strip("[]")), int(port))


def type_of(app_id: str) -> str:
    return f"{app_id}.local."


def announcement(services: Iterable[Service], ttl: int) -> list[bytes]:
    """Unasked: these services are here, or with `GOODBYE` are not any more."""
    out = DNSOutgoing(_RESPONSE)
    for service in services:
        out.add_answer_at_time(_pointer(service, ttl), 0)
        for record in _details(service, ttl):
            out.add_additional_answer(record)
    return out.packets()


def query(questions: Iterable[tuple[str, int]]) -> list[bytes]:
    """(name, record type) pairs."""
    out = DNSOutgoing(_QUERY)
    for name, kind in questions:
        out.add_question(DNSQuestion(name, kind, _IN))
    return out.packets()


def answer(message: DNSIncoming, services: Sequence[Service]) -> list[Service]:
    """Which of the services a query asks for and its sender does not know yet."""
    asked = {(question.name.lower(), question.type) for question in message.questions}
    known = {
        record.alias.lower()
        for record in message.answers()
        if isinstance(record, DNSPointer) and record.ttl >= TTL / 2
    }
    return [service for service in services if _wants(asked, service, known)]


def parse(data: bytes) -> DNSIncoming | None:
    """None for what is no DNS message."""
    message = DNSIncoming(data)
    return message if message.valid else None


def _wants(asked: set[tuple[str, int]], service: Service, known: set[str]) -> bool:
    kinds = {
        service.type.lower(): {PTR, ANY},
        service.name.lower(): {_SRV, _TXT, ANY},
        service.host.lower(): {_A, _AAAA, ANY},
    }
    return any(
        kind in kinds.get(name, ()) and (name != service.type.lower() or service.name.lower() not in known)
        for name, kind in asked
    )


def _pointer(service: Service, ttl: int) -> DNSPointer:
    return DNSPointer(service.type, PTR, _IN, ttl, service.name)


def _details(service: Service, ttl: int) -> list[DNSRecord]:
    kind = _A if isinstance(service.ip, IPv4Address) else _AAAA
    return [
        DNSService(service.name, _SRV, _ONLY, ttl, 0, 0, service.port, service.host),
        DNSText(service.name, _TXT, _ONLY, ttl, _texts(service)),
        DNSAddress(service.host, kind, _ONLY, ttl, service.ip.packed),
    ]


def _texts(service: Service) -> bytes:
    strings = [service.app_id.encode(), f"namespace={service.namespace}".encode()[:255]]
    return b"".join(bytes([len(string)]) + string for string in strings)
