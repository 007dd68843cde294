"""The sockets: one for each network interface, all on mDNS's port and in its group."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address
from typing import Final, final

import ifaddr
import trio
from attrs import frozen

__all__ = ["GROUP", "PORT", "Interface", "all_addresses", "open_interface"]

GROUP: Final = "224.0.0.251"
PORT: Final = 5353
_IP_MULTICAST_ALL: Final = 49  # Linux; the socket module does not name it


@final
@frozen(eq=False)
class Interface:
    """A socket that hears and speaks on the interface with this address only."""

    ip: IPv4Address
    sock: trio.socket.SocketType

    async def send(self, packets: Sequence[bytes]) -> None:
        """Raises OSError when the interface is down."""
        for packet in packets:
            await self.sock.sendto(packet, (GROUP, PORT))


def all_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this machine's interfaces, the loopback included."""
    adapters = ifaddr.get_adapters()
    return tuple(dict.fromkeys(str(ip.ip) for adapter in adapters for ip in adapter.ips if ip.is_IPv4))


async def open_interface(address: str) -> Interface:
    """Raises OSError where multicast is not possible. The port is shared with other responders on the
    machine.
    """
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ip = socket.inet_aton(address)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, ip)
        if sys.platform == "linux":  # else the socket would hear what other sockets joined
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        await sock.bind(("", PORT))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + ip)
    except BaseException:
        sock.close()
        raise
    return Interface(IPv4Address(ip_address(address)), sock)
