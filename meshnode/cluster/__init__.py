"""Who is where: name resolution, and the channels to the other nodes.

May import interfaces, transport and errors (and whatever lies below them).
"""

from __future__ import annotations

from meshnode.cluster.directory import Directory, LookupFailed
from meshnode.cluster.peers import NoAddress, Peer, PeerLimits, Peers, PeerUnavailable, open_peers

__all__ = [
    "Directory",
    "LookupFailed",
    "NoAddress",
    "Peer",
    "PeerLimits",
    "PeerUnavailable",
    "Peers",
    "open_peers",
]
