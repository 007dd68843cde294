"""A network in memory: links that can be slow, narrow, cut or silent, on trio's clock and from one seed.

    network = Network(random.Random(7))
    listener = network.listen("orders:50002")
    stream = await network.dial("orders:50002", source="checkout")
    network.link("checkout", "orders:50002").delay(0.2, jitter=0.05)
    network.link(ANY, "orders:50002").cut()        # existing connections reset, new ones refused

A link is named by who dials and the address dialled; `ANY` stands for everybody or everywhere. What holds for
a connection is the sum of the four links that cover it: delays add up, the narrowest throttle counts, one cut
is enough. Conditions may change at any moment: what is under way keeps the arrival time it was given, and
nothing overtakes.

Every connection draws its jitter from a generator of its own, derived from the network's seed, the link and
the connection's number, so the order in which tasks happen to run does not change it. May import trio and
this package only.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterable
from typing import Final, final

import trio

from meshnode.testing._pipe import Pipe

__all__ = ["ANY", "Link", "LinkStream", "MemoryListener", "Network"]

ANY: Final = "*"


@final
class LinkStream(trio.abc.HalfCloseableStream):
    """One end of a connection."""

    __slots__ = ("_connection", "_incoming", "_outgoing", "local", "remote")

    def __init__(
        self, connection: _Connection, outgoing: Pipe, incoming: Pipe, local: str, remote: str
    ) -> None:
        self._connection = connection
        self._outgoing = outgoing
        self._incoming = incoming
        self.local: Final = local
        self.remote: Final = remote

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._outgoing.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._outgoing.wait_writable()

    async def send_eof(self) -> None:
        await self._outgoing.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._incoming.receive(max_bytes)

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self._outgoing.close_writer()
        self._incoming.close_reader()
        self._connection.closed(self)


@final
class Link:
    """What happens between one dialler and one address. Made by `Network.link`; every change takes effect at
    once.
    """

    def __init__(self) -> None:
        self._delay = 0.0
        self._jitter = 0.0
        self._rate = float("inf")
        self._cut = False
        self._silent = False
        self._connections: dict[_Connection, None] = {}  # a dict: resets happen in the order of dialling
        self._changed = trio.lowlevel.ParkingLot()

    def delay(self, seconds: float, *, jitter: float = 0.0) -> None:
        """Whatever is sent from now on takes `seconds`, give or take up to `jitter`, one way."""
        if seconds < 0 or jitter < 0:
            raise ValueError("delay and jitter must not be negative")
        self._delay, self._jitter = seconds, jitter

    def throttle(self, bytes_per_second: float | None) -> None:
        """Whatever is sent from now on goes at this rate in each direction of each connection; None lifts the
        limit.
        """
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise ValueError("the rate must be positive; to let nothing through, use black_hole() or cut()")
        self._rate = float("inf") if bytes_per_second is None else bytes_per_second

    def cut(self) -> None:
        """Resets every connection, with what is under way; new ones are refused until `heal`."""
        self._cut = True
        for connection in list(self._connections):
            connection.reset()
        self._notify()

    def black_hole(self) -> None:
        """Nothing arrives any more and nobody is told: connections stay open and mute, dials hang, until
        `heal` or `cut`.
        """
        self._silent = True
        self._notify()

    def heal(self) -> None:
        """Ends `cut` and `black_hole` (not delay and throttle). What a black hole held back arrives now."""
        self._cut = self._silent = False
        self._notify()

    @property
    def connections(self) -> int:
        """How many are open at either end."""
        return len(self._connections)

    def _notify(self) -> None:
        for connection in self._connections:
            connection.wake()
        self._changed.unpark_all()


@final
class _Path:
    """The links that cover one connection, taken together."""

    __slots__ = ("links",)

    def __init__(self, links: Iterable[Link]) -> None:
        self.links = tuple(links)

    def is_cut(self) -> bool:
        return any(link._cut for link in self.links)

    def is_silent(self) -> bool:
        return any(link._silent for link in self.links)

    def rate(self) -> float:
        return min(link._rate for link in self.links)

    def latency(self, rng: random.Random) -> float:
        total = 0.0
        for link in self.links:
            total += link._delay
            if link._jitter:
                total += rng.uniform(-link._jitter, link._jitter)
        return max(0.0, total)

    async def wait_open(self) -> None:
        """Returns once nothing swallows packets; raises when they are refused."""
        while True:
            if self.is_cut():
                raise _refused()
            silent = next((link for link in self.links if link._silent), None)
            if silent is None:
                return
            await silent._changed.park()


@final
class _Connection:
    """Two pipes and the path they share."""

    __slots__ = ("_open", "_path", "_pipes", "client", "server")

    def __init__(self, path: _Path, seed: str, capacity: int, source: str, address: str) -> None:
        self._path = path
        there = Pipe(capacity, _Schedule(path, random.Random(f"{seed}/there")), path.is_silent)
        back = Pipe(capacity, _Schedule(path, random.Random(f"{seed}/back")), path.is_silent)
        self._pipes = (there, back)
        self.client: Final = LinkStream(self, there, back, source, address)
        self.server: Final = LinkStream(self, back, there, address, source)
        self._open = {id(self.client), id(self.server)}
        for link in path.links:
            link._connections[self] = None

    def wake(self) -> None:
        for pipe in self._pipes:
            pipe.wake()

    def reset(self) -> None:
        for pipe in self._pipes:
            pipe.reset()
        self._detach()

    def closed(self, end: LinkStream) -> None:
        self._open.discard(id(end))
        if not self._open:
            self._detach()

    def _detach(self) -> None:
        for link in self._path.links:
            link._connections.pop(self, None)


@final
class _Schedule:
    """When bytes sent now arrive: after those before them have passed the throttle, then the latency."""

    __slots__ = ("_free_at", "_path", "_rng")

    def __init__(self, path: _Path, rng: random.Random) -> None:
        self._path = path
        self._rng = rng
        self._free_at = float("-inf")

    def __call__(self, size: int) -> float:
        now = trio.current_time()
        rate = self._path.rate()
        self._free_at = now if rate == float("inf") else max(now, self._free_at) + size / rate
        return self._free_at + self._path.latency(self._rng)


@final
class MemoryListener(trio.abc.Listener[LinkStream]):
    """Where dialled connections arrive; closing it refuses new ones and resets those nobody accepted."""

    def __init__(self, network: Network, address: str, backlog: int) -> None:
        self._network = network
        self.address: Final = address
        self._incoming, self._accepted = trio.open_memory_channel[LinkStream](backlog)

    async def accept(self) -> LinkStream:
        try:
            return await self._accepted.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise trio.ClosedResourceError("this listener was closed") from None

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self._network._unlisten(self)
        self._incoming.close()
        while True:
            try:
                self._accepted.receive_nowait()._connection.reset()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
        self._accepted.close()

    def _arrived(self, stream: LinkStream) -> None:
        try:
            self._incoming.send_nowait(stream)
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            raise _refused() from None


@final
class Network:
    """Addresses, who listens at them, and the links that lead there.

    `capacity` is how many bytes a connection holds per direction before its sender waits.
    """

    def __init__(self, rng: random.Random | None = None, *, capacity: int = 64 * 1024) -> None:
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self._seed = (rng or random.Random(0)).getrandbits(64)
        self._capacity = capacity
        self._listeners: dict[str, MemoryListener] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._dialled: dict[tuple[str, str], int] = {}

    def listen(self, address: str, *, backlog: int = 128) -> MemoryListener:
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {address}")
        listener = self._listeners[address] = MemoryListener(self, address, backlog)
        return listener

    def link(self, source: str, address: str) -> Link:
        """The link from `source` to `address`, either of which may be `ANY`."""
        return self._links.setdefault((source, address), Link())

    async def dial(self, address: str, *, source: str = "") -> LinkStream:
        """Connects after one round trip. Raises `ConnectionRefusedError` where nobody listens or the link is
        cut.
        """
        path = self._path(source, address)
        number = self._dialled[source, address] = self._dialled.get((source, address), 0) + 1
        seed = f"{self._seed}/{source}/{address}/{number}"
        rng = random.Random(seed)
        await trio.lowlevel.checkpoint()
        await _travel(path, rng)
        listener = self._listeners.get(address)
        if listener is None:
            raise _refused()
        connection = _Connection(path, seed, self._capacity, source, address)
        try:
            listener._arrived(connection.server)
            await _travel(path, rng)
        except BaseException:
            connection.reset()
            raise
        return connection.client

    def _path(self, source: str, address: str) -> _Path:
        names = dict.fromkeys([(source, address), (source, ANY), (ANY, address), (ANY, ANY)])
        return _Path(self.link(*name) for name in names)

    def _unlisten(self, listener: MemoryListener) -> None:
        if self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]


async def _travel(path: _Path, rng: random.Random) -> None:
    """One packet's way: it waits while the path is silent, fails where it is cut."""
    await path.wait_open()
    latency = path.latency(rng)
    if latency:
        await trio.sleep(latency)
        await path.wait_open()


def _refused() -> ConnectionRefusedError:
    return ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
