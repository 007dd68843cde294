"""Which instance gets the next call. Pure: reads the peers it is shown, changes nothing."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from meshnode.cluster._peer import Peer

__all__ = ["choose"]


def choose(
    addresses: Sequence[str],
    peers: Mapping[str, Peer],
    rng: random.Random,
    now: float,
    exclude: Collection[str] = frozenset(),
) -> str:
    """One of `addresses` (at least one): of two drawn at random, the one with fewer calls in flight.

    Those in `exclude` and those that are down are taken only when there is no other; then the one that failed
    longest ago.
    """
    if exclude:
        addresses = [address for address in addresses if address not in exclude] or addresses
    if len(addresses) == 1:
        return addresses[0]
    one, other = _draw(addresses, rng)
    # Nearly always both are up, and then nothing is asked of all the others.
    if _is_down(peers.get(one), now) or _is_down(peers.get(other), now):
        up = [address for address in addresses if not _is_down(peers.get(address), now)]
        if not up:
            return min(addresses, key=lambda address: peers[address].failed_until)
        if len(up) == 1:
            return up[0]
        one, other = _draw(up, rng)
    return one if _load(peers.get(one)) <= _load(peers.get(other)) else other


def _draw(addresses: Sequence[str], rng: random.Random) -> tuple[str, str]:
    """Two different ones. (`rng.randrange` would be four times as slow.)"""
    count = len(addresses)
    first = int(rng.random() * count)
    return addresses[first], addresses[first - 1 - int(rng.random() * (count - 1))]


def _is_down(peer: Peer | None, now: float) -> bool:
    return peer is not None and peer.is_down(now)


def _load(peer: Peer | None) -> int:
    return 0 if peer is None else peer.load
