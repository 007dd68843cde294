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
    if len(addresses) == 1:
        return addresses[0]
    candidates = [address for address in addresses if address not in exclude] if exclude else addresses
    candidates = candidates or addresses
    if any(peer.is_down(now) for peer in peers.values()):
        up = [address for address in candidates if address not in peers or not peers[address].is_down(now)]
        if not up:
            return min(candidates, key=lambda address: peers[address].failed_until)
        candidates = up
    if len(candidates) == 1:
        return candidates[0]
    first = rng.randrange(len(candidates))
    second = (first + 1 + rng.randrange(len(candidates) - 1)) % len(candidates)
    return min(candidates[first], candidates[second], key=lambda address: _load(peers.get(address)))


def _load(peer: Peer | None) -> int:
    return 0 if peer is None else peer.load
