"""The resolver: a task per interface that listens and answers, announcements, and lookups that ask and wait.

Everything heard is remembered for a while, whether asked for or not, so most lookups answer at once. What is
in use is asked for again before it expires; there is no task for that, a lookup does it in passing.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode.interfaces import DriverContext, Instance, lone_error
from meshnode_nameresolution_mdns import _packets as packets
from meshnode_nameresolution_mdns._dns import DNSIncoming
from meshnode_nameresolution_mdns._options import MdnsOptions
from meshnode_nameresolution_mdns._packets import Service
from meshnode_nameresolution_mdns._sightings import Found, Sightings
from meshnode_nameresolution_mdns._sockets import Interface, all_addresses, open_interface

__all__ = ["MdnsResolver"]

LARGEST: Final = 9000
"""Bytes of a datagram; RFC 6762 allows no more."""
ANNOUNCEMENTS: Final = 2
SETTLE: Final = 0.05
"""Seconds to wait, after the first answer about an app id, for those of its other instances."""
FIRST_RETRY: Final = 0.25
QUIET: Final = 0.1
"""Seconds in which a service is not announced twice on one interface, however often it is asked for."""
FAREWELL: Final = 1.0


@final
class MdnsResolver:
    """Fulfils `NameResolver`. Made by `open`."""

    max_age: Final = 1.0

    def __init__(self, interfaces: Sequence[Interface], options: MdnsOptions, context: DriverContext) -> None:
        self._interfaces = interfaces
        self._patience = options.browse_timeout.total_seconds()
        self._context = context
        self._services: list[Service] = []
        self._sightings = Sightings()
        self._heard = trio.lowlevel.ParkingLot()
        self._spoken: dict[tuple[Interface, Service], float] = {}
        self._refreshed: dict[str, float] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, options: MdnsOptions, context: DriverContext) -> AsyncIterator[MdnsResolver]:
        interfaces = await _open_interfaces(options, context)
        resolver = cls(interfaces, options, context)
        try:
            with lone_error():
                async with trio.open_nursery() as nursery:
                    for interface in interfaces:
                        nursery.start_soon(resolver._listen, interface)
                    yield resolver
                    nursery.cancel_scope.cancel()
        finally:
            for interface in interfaces:
                interface.sock.close()

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        service = self._service(instance)
        self._services.append(service)
        try:
            with lone_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._introduce, service)
                    yield
                    nursery.cancel_scope.cancel()
        finally:
            self._services.remove(service)
            with trio.move_on_after(FAREWELL, shield=True):
                await self._say([service], packets.GOODBYE)

    async def resolve(self, app_id: str, namespace: str) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        found = self._find(app_id, namespace)
        if not found.addresses:
            with trio.move_on_after(self._patience):
                found = await self._browse(app_id, namespace)
        elif found.stale:
            await self._refresh(app_id)
        return found.addresses

    def _find(self, app_id: str, namespace: str) -> Found:
        return self._sightings.find(app_id, namespace, trio.current_time())

    async def _browse(self, app_id: str, namespace: str) -> Found:
        """Asks, more and more seldom, until there is an answer. The caller owns the limit."""
        pause = FIRST_RETRY
        while True:
            found = self._find(app_id, namespace)
            await self._ask(app_id, found)
            with trio.move_on_after(pause):
                while not found.addresses:
                    await self._heard.park()
                    found = self._find(app_id, namespace)
                await trio.sleep(SETTLE)
            if found.addresses:
                return self._find(app_id, namespace)
            pause *= 2

    async def _refresh(self, app_id: str) -> None:
        """Asks again about an app id in use, at most once a second, and waits for nothing."""
        now = trio.current_time()
        self._refreshed = {name: when for name, when in self._refreshed.items() if now - when < 1.0}
        if app_id not in self._refreshed:
            self._refreshed[app_id] = now
            await self._ask(app_id)

    async def _ask(self, app_id: str, found: Found | None = None) -> None:
        questions = [(packets.type_of(app_id), packets.PTR)]
        if found is not None:
            questions += [(name, packets.ANY) for name in found.incomplete]
        for interface in self._interfaces:
            await self._send(interface, packets.query(questions))

    async def _introduce(self, service: Service) -> None:
        for _ in range(ANNOUNCEMENTS):
            await self._say([service], packets.TTL)
            await trio.sleep(1.0)

    async def _say(self, services: Sequence[Service], ttl: int) -> None:
        for interface in self._interfaces:
            await self._say_at(interface, services, ttl)

    async def _say_at(self, interface: Interface, services: Sequence[Service], ttl: int) -> None:
        # An address of the loopback means another machine to those who hear it elsewhere.
        services = [service for service in services if interface.ip.is_loopback or not service.ip.is_loopback]
        if services:
            await self._send(interface, packets.announcement(services, ttl))

    async def _send(self, interface: Interface, messages: Sequence[bytes]) -> None:
        try:
            await interface.send(messages)
        except OSError as error:
            self._context.log.debug("mDNS: cannot send on %s: %s", interface.ip, error)

    async def _listen(self, interface: Interface) -> None:
        while True:
            try:
                data, _ = await interface.sock.recvfrom(LARGEST)
            except OSError as error:
                self._context.log.warning("mDNS: cannot receive on %s: %s", interface.ip, error)
                await trio.sleep(1.0)  # it may come back, but not at once
                continue
            message = packets.parse(data)
            if message is None:
                continue
            if message.is_query():
                await self._answer(interface, message)
            else:
                self._sightings.hear(message.answers(), trio.current_time())
                self._heard.unpark_all()

    async def _answer(self, interface: Interface, message: DNSIncoming) -> None:
        now = trio.current_time()
        self._spoken = {key: when for key, when in self._spoken.items() if now - when < QUIET}
        services = [
            service
            for service in packets.answer(message, self._services)
            if (interface, service) not in self._spoken
        ]
        self._spoken.update({(interface, service): now for service in services})
        await self._say_at(interface, services, packets.TTL)

    def _service(self, instance: Instance) -> Service:
        # Unique by chance, so nobody needs to be asked whether the name is taken before it is used.
        host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
        label = f"{host}-{self._context.rng.getrandbits(64):016x}"
        try:
            return Service.at(instance.app_id, instance.namespace, instance.address, label)
        except ValueError as error:
            raise ComponentError(
                f"mDNS cannot announce {instance.app_id} at {instance.address}: {error}"
            ) from error


async def _open_interfaces(options: MdnsOptions, context: DriverContext) -> list[Interface]:
    """Those named must all work; of all there are, at least one."""
    interfaces, failures = [], []
    for address in options.interfaces or all_addresses():
        try:
            interfaces.append(await open_interface(address))
        except OSError as error:
            failures.append(f"{address}: {error}")
    if not interfaces or (failures and options.interfaces):
        for interface in interfaces:
            interface.sock.close()
        raise ComponentUnavailable(f"mDNS: cannot use multicast: {'; '.join(failures) or 'no interface'}")
    for failure in failures:
        context.log.info("mDNS: not used: %s", failure)
    return interfaces
