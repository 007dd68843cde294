"""The other nodes, each with its channel: shared by all calls, dialled when wanted, closed when not.

    async with open_peers(directory, rng=rng) as peers:
        peer = await peers.pick("order-processor", "default")
        with peers.watch(peer):
            await peer.channel.unary_raw(…)

Rules:
- Of several instances two are drawn and the one with fewer calls in flight is taken (power of two choices):
  nearly as even as looking at all of them, and nodes that see the same do not all run to the same instance.
- An instance whose connection failed is passed over while there is another, until some time has gone by and
  its own task has connected to it again: no call is spent on finding out. If there is no other it is tried
  all the same, and its answer, or its error, is the caller's.
- A first failure drops the directory's answer, so the next pick asks the resolver again.
- A channel redials with a backoff of its own, up to minutes. A caller who has no other instance does not wait
  for that: its pick replaces the channel, at most once in `PeerLimits.failure` seconds.
- A peer that the resolver no longer names takes no new calls and closes after its last one. One that nobody
  has called for a while closes too.

Every channel lives in a task of the pool; the pool's nursery ends with `open_peers`. May import transport,
interfaces, errors.
"""

from __future__ import annotations

import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from types import TracebackType
from typing import Final, final

import trio
from attrs import field, frozen, mutable

from meshnode.cluster._choice import choose
from meshnode.cluster._peer import Peer
from meshnode.cluster.directory import Directory
from meshnode.errors import ComponentUnavailable, MeshError, Status
from meshnode.interfaces import Instance
from meshnode.transport import DEFAULT_LIMITS, Channel, ConnectionLost, KeepAlive, Limits, open_channel

__all__ = ["NoAddress", "Peer", "PeerLimits", "PeerUnavailable", "Peers", "open_peers"]

Connect = Callable[[Instance], AbstractAsyncContextManager[Channel]]
Dial = Callable[[str], Awaitable[trio.abc.Stream]]
TLS = Callable[[Instance], ssl.SSLContext | None]

_KEEPALIVE: Final = KeepAlive(interval=300.0)
"""A call to a peer that vanished without a word ends in time; servers allow no more PINGs by default."""

_log: Final = logging.getLogger("meshnode.cluster")


@frozen
class PeerLimits:
    """How long what is kept, in seconds, and how much of it."""

    idle: float = 300.0
    """A channel without a call for so long closes."""
    failure: float = 5.0
    """An instance that failed is passed over for so long."""
    peers: int = 1024
    """Open channels; beyond it, the one idle longest gives way."""


class NoAddress(MeshError):
    """Nobody serves the app id. The words are Dapr's; InvokeService puts the app id before them."""

    status = Status.UNKNOWN

    def __init__(self, app_id: str, namespace: str) -> None:
        super().__init__("no host found with the given ID")
        self.app_id = app_id
        self.namespace = namespace


class PeerUnavailable(ComponentUnavailable):
    """A channel to the peer cannot even be made. (A peer that does not answer is the channel's own error.)"""

    status = Status.UNAVAILABLE


@final
@mutable
class _App:
    """What is known of one app id: the addresses last resolved, and the peers among
    them that have a channel.
    """

    addresses: tuple[str, ...] = ()
    peers: dict[str, Peer] = field(factory=dict)


@final
class Peers:
    """The pool. Made by `open_peers`."""

    def __init__(
        self,
        directory: Directory,
        wanted: trio.MemorySendChannel[Peer],
        rng: random.Random,
        limits: PeerLimits,
    ) -> None:
        self._directory = directory
        self._wanted = wanted
        self._rng = rng
        self._limits = limits
        self._apps: dict[tuple[str, str], _App] = {}

    async def pick(self, app_id: str, namespace: str, exclude: Collection[str] = frozenset()) -> Peer:
        """An instance of the app id; those with an address in `exclude` only if there is no other.

        Raises `NoAddress`, `LookupFailed` or `PeerUnavailable`. Does not checkpoint when everything is at
        hand.
        """
        addresses = self._directory.cached(app_id, namespace)
        if addresses is None:
            addresses = await self._directory.lookup(app_id, namespace)
        app = self._update(app_id, namespace, addresses)
        if not addresses:
            raise NoAddress(app_id, namespace)
        now = trio.current_time()
        address = choose(addresses, app.peers, self._rng, now, exclude)
        peer = app.peers.get(address)
        if peer is None or (peer.cannot_connect and peer.failed_until <= now):
            peer = self._replace(app, Instance(app_id, address, namespace), now)
        peer.last_used = now
        error = await peer.opened()
        if error is not None:
            raise PeerUnavailable(f"failed to connect to {app_id} at {address}: {error}") from error
        return peer

    def watch(self, peer: Peer) -> _Watch:
        """Around a call: counts it as in flight, and notes when the connection fails under it."""
        return _Watch(self, peer)

    def failed(self, peer: Peer) -> None:
        """The connection to this peer failed. It is passed over for a while, and the next pick resolves
        afresh.
        """
        now = trio.current_time()
        if peer.failed_until > now:
            return  # known, and the directory has been told: a storm of failures is not a storm of lookups
        peer.failed(until=now + self._limits.failure)
        instance = peer.instance
        self._directory.invalidate(instance.app_id, instance.address, instance.namespace)

    def __len__(self) -> int:
        """How many channels there are."""
        return sum(len(app.peers) for app in self._apps.values())

    def __iter__(self) -> Iterator[Peer]:
        return (peer for app in list(self._apps.values()) for peer in list(app.peers.values()))

    def _update(self, app_id: str, namespace: str, addresses: tuple[str, ...]) -> _App:
        """Notes what the resolver says now; peers it no longer names are retired."""
        name = app_id, namespace
        app = self._apps.get(name)
        if app is None:
            app = _App()
            if addresses:
                self._apps[name] = app
        if app.addresses is not addresses:
            for gone in app.peers.keys() - set(addresses):
                app.peers.pop(gone).retire()
            app.addresses = addresses
            if not addresses:
                self._apps.pop(name, None)
        return app

    def _replace(self, app: _App, instance: Instance, now: float) -> Peer:
        old = app.peers.pop(instance.address, None)
        if old is not None:
            old.retire()
        self._make_room()
        peer = Peer(instance, now)
        try:
            self._wanted.send_nowait(peer)
        except trio.WouldBlock:
            raise _too_many() from None
        app.peers[instance.address] = peer
        self._apps[instance.app_id, instance.namespace] = app  # it may have lost its last peer just now
        return peer

    def _make_room(self) -> None:
        if len(self) < self._limits.peers:
            return
        idle = [peer for peer in self if peer.is_open and not peer.load]
        if not idle:
            raise _too_many()
        oldest = min(idle, key=lambda peer: peer.last_used)
        self._forget(oldest)
        oldest.retire()

    def _forget(self, peer: Peer) -> None:
        name = peer.instance.app_id, peer.instance.namespace
        app = self._apps.get(name)
        if app is None or app.peers.get(peer.instance.address) is not peer:
            return
        del app.peers[peer.instance.address]
        if not app.peers:
            del self._apps[name]

    async def _keep(self, peer: Peer, connect: Connect) -> None:
        """The life of one peer's channel; nothing that goes wrong with it reaches the others."""
        try:
            async with connect(peer.instance) as channel:
                peer.open(channel)
                await peer.until_unwanted(self._limits.idle)
                self._forget(peer)  # first of all: from here on nobody picks it
        except Exception as error:
            _log.warning("Channel to %s at %s: %s", peer.instance.app_id, peer.instance.address, error)
            peer.cannot_open(error)
        finally:
            self._forget(peer)


@final
class _Watch:
    """What `Peers.watch` gives; a class, because a generator would cost each call a microsecond more."""

    __slots__ = ("_peer", "_peers")

    def __init__(self, peers: Peers, peer: Peer) -> None:
        self._peers = peers
        self._peer = peer

    def __enter__(self) -> None:
        self._peer.calls += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        peer = self._peer
        peer.calls -= 1
        peer.last_used = trio.current_time()
        if error is None:
            peer.recovered()
        elif _is_lost(error):
            self._peers.failed(peer)


@asynccontextmanager
async def open_peers(
    directory: Directory,
    *,
    dial: Dial | None = None,
    rng: random.Random | None = None,
    limits: Limits = DEFAULT_LIMITS,
    pool: PeerLimits | None = None,
    tls: TLS | None = None,
    connect: Connect | None = None,
) -> AsyncIterator[Peers]:
    """The pool, for as long as the context is open; leaving it ends every channel at once.

    `dial` replaces the network, `tls` says how to meet each instance (None: in the clear), `limits` is the
    transport's and goes to every channel. `connect` replaces all three.
    """
    pool = pool or PeerLimits()
    rng = rng or random.Random()
    connect = connect or partial(_connect, dial, tls, rng, limits)
    send, receive = trio.open_memory_channel[Peer](pool.peers)
    peers = Peers(directory, send, rng, pool)
    with _unwrapped():
        async with send, receive, trio.open_nursery() as nursery:
            nursery.start_soon(_keep_all, peers, receive, connect)
            yield peers
            nursery.cancel_scope.cancel()


async def _keep_all(peers: Peers, wanted: trio.MemoryReceiveChannel[Peer], connect: Connect) -> None:
    async with trio.open_nursery() as nursery:
        async for peer in wanted:
            nursery.start_soon(peers._keep, peer, connect)


def _connect(
    dial: Dial | None, tls: TLS | None, rng: random.Random, limits: Limits, instance: Instance
) -> AbstractAsyncContextManager[Channel]:
    target = instance.address if dial is None else partial(dial, instance.address)
    context = None if tls is None else tls(instance)
    return open_channel(
        target, ssl=context, authority=instance.address, rng=rng, limits=limits, keepalive=_KEEPALIVE
    )


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_lost(inner) for inner in error.exceptions)
    return isinstance(error, ConnectionLost)


def _too_many() -> MeshError:
    return MeshError("too many peers in use", status=Status.RESOURCE_EXHAUSTED)


@contextmanager
def _unwrapped() -> Iterator[None]:
    """The pool's own tasks raise nothing: an error that comes out of its nursery is the body's, and alone."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__
