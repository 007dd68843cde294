"""What was heard: which instances of which app ids, where, and how long ago. Pure; takes `now`.

Records come from anybody on the network, so everything kept is bounded, and a record is kept only when it
belongs to an instance that a pointer has named.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, final

from attrs import define, field, frozen

from meshnode_nameresolution_mdns._dns import DNSAddress, DNSPointer, DNSRecord, DNSService, DNSText
from meshnode_nameresolution_mdns._packets import TTL, type_of

__all__ = ["Found", "Sightings"]

MOST: Final = 4096
"""Instances remembered, of all app ids; the one not heard of for longest gives way."""
MOST_ADDRESSES: Final = 16
REFRESH: Final = TTL / 2
"""Seconds after which the network should be asked again about an instance that is in use."""


@final
@define
class _Instance:
    type: str
    heard: float
    expires: float
    host: str = ""
    port: int = 0
    texts: tuple[bytes, ...] = ()
    ips: list[IPv4Address | IPv6Address] = field(factory=list)

    @property
    def is_complete(self) -> bool:
        return bool(self.port and self.texts and self.ips)

    def address(self) -> str:
        """Like Dapr, the first IPv4 address, or the first of version 6 where there is none."""
        ip = min(self.ips, key=lambda ip: ip.version)
        return f"{ip}:{self.port}" if ip.version == 4 else f"[{ip}]:{self.port}"


@frozen
class Found:
    """`addresses` of an app id; `incomplete` are instances with records missing; `stale`: ask again soon."""

    addresses: tuple[str, ...]
    incomplete: tuple[str, ...]
    stale: bool


@final
class Sightings:
    def __init__(self) -> None:
        self._instances: dict[str, _Instance] = {}  # by name in lower case; the one heard of last is the last

    def __len__(self) -> int:
        return len(self._instances)

    def hear(self, records: Iterable[DNSRecord], now: float) -> None:
        """Takes in the records of one response."""
        records = list(records)
        for record in records:
            if isinstance(record, DNSPointer):
                self._hear_pointer(record, now)
        for record in records:
            if isinstance(record, DNSService | DNSText):
                self._hear_details(record)
        addresses = [record for record in records if isinstance(record, DNSAddress) and record.ttl]
        if addresses:
            self._hear_addresses(addresses)

    def find(self, app_id: str, namespace: str, now: float) -> Found:
        wanted = type_of(app_id).lower()
        addresses, incomplete, stale = [], [], False
        for name, instance in list(self._instances.items()):
            if instance.type != wanted:
                continue
            if instance.expires <= now:
                del self._instances[name]
            elif not instance.is_complete:
                incomplete.append(name)
            elif _is_meant(instance, app_id, namespace):
                addresses.append(instance.address())
                stale = stale or instance.heard + REFRESH <= now
        return Found(tuple(sorted(set(addresses))), tuple(incomplete), stale)

    def _hear_pointer(self, record: DNSPointer, now: float) -> None:
        label, _, domain = record.name.lower().partition(".")
        name = record.alias.lower()
        if domain != "local." or label.startswith("_") or not name.endswith(f".{record.name.lower()}"):
            return
        instance = self._instances.pop(name, None)
        if not record.ttl:
            return
        if instance is None:
            instance = _Instance(record.name.lower(), now, now)
        # A longer life than our own announcements have is not granted: nobody says goodbye for a node that
        # crashed.
        instance.heard, instance.expires = now, now + min(record.ttl, TTL)
        self._instances[name] = instance
        while len(self._instances) > MOST:
            del self._instances[next(iter(self._instances))]

    def _hear_details(self, record: DNSService | DNSText) -> None:
        instance = self._instances.get(record.name.lower())
        if instance is None or not record.ttl:
            return
        if isinstance(record, DNSText):
            instance.texts = _strings(record.text)
        else:
            if instance.host != record.server.lower():
                instance.ips = []
            instance.host, instance.port = record.server.lower(), record.port

    def _hear_addresses(self, records: list[DNSAddress]) -> None:
        for host in {record.name.lower() for record in records}:
            ips = [ip_address(record.address) for record in records if record.name.lower() == host]
            for instance in self._instances.values():
                if instance.host == host:
                    instance.ips = list(dict.fromkeys(ips))[:MOST_ADDRESSES]


def _is_meant(instance: _Instance, app_id: str, namespace: str) -> bool:
    """A daprd says no namespace, so it is found from any."""
    if instance.texts[0] != app_id.encode():
        return False
    said = [text for text in instance.texts[1:] if text.startswith(b"namespace=")]
    return not said or said[0] == f"namespace={namespace}".encode()[:255]


def _strings(data: bytes) -> tuple[bytes, ...]:
    strings = []
    while data:
        size = data[0]
        strings.append(data[1 : 1 + size])
        data = data[1 + size :]
    return tuple(strings)
