"""Name resolution by multicast DNS: nodes of one local network find each other without any server.

Announcements and queries have the form of Dapr's mdns name resolution, so meshnodes and daprds see each
other. The packets are encoded and parsed by zeroconf; its event loop is not used, for it takes asyncio's
clock to be the system's, which it is not when asyncio runs on trio.

Imports meshnode.interfaces, meshnode.errors, trio, zeroconf and ifaddr.
"""

from __future__ import annotations

from meshnode.interfaces import Driver
from meshnode_nameresolution_mdns._options import MdnsOptions
from meshnode_nameresolution_mdns._resolver import MdnsResolver

__all__ = ["MdnsOptions", "MdnsResolver", "driver"]

driver: Driver[MdnsResolver] = Driver(
    type="nameresolution.mdns",
    metadata=MdnsOptions,
    open=MdnsResolver.open,
    summary="Nodes of one local network find each other by multicast DNS.",
)
