"""Which server a key belongs to: one server, the master that sentinels name, or a cluster.

Runs on the asyncio side, except `lane`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Protocol, final

from redis.asyncio import ConnectionPool, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from meshnode_redis._command import TROUBLE, Command, Lost
from meshnode_redis._lane import Connector, Lane, Pace
from meshnode_redis._options import ConnectionOptions, seconds
from meshnode_redis._private import Private
from meshnode_redis._script import fallback

__all__ = ["Cluster", "Single", "Topology", "make_topology"]


class Topology(Protocol):
    """What the store needs of the servers.

    `blocking` asks for the lane where commands that wait for replicas go.
    """

    async def connect(self) -> None:
        """Raises one of `TROUBLE` when nothing answers."""
        ...

    async def serve(self) -> None:
        """Runs the lanes until it is cancelled."""
        ...

    async def aclose(self) -> None: ...

    def lane(self, key: str, *, blocking: bool = False) -> Lane: ...

    def private(self, key: str, longest: float) -> Private:
        """A lane of its own to the key's server, for commands that block for so many seconds."""
        ...

    def lanes(self) -> list[Lane]:
        """One for each server that holds data."""
        ...

    def connectors(self) -> list[Connector]:
        """One for each server that holds data, for connections outside of any lane."""
        ...

    def slot(self, key: str) -> int:
        """Keys of one transaction must agree in this."""
        ...


def _connection_options(options: ConnectionOptions, certificates: Mapping[str, Any]) -> dict[str, Any]:
    dial = seconds(options.dial_timeout)
    return {
        "username": options.username or None,
        "password": options.password or None,
        "socket_connect_timeout": dial if dial > 0 else None,
        "socket_timeout": _read_timeout(options),
        "protocol": 2,
        "driver_info": None,
        **certificates,
    }


def _read_timeout(options: ConnectionOptions) -> float | None:
    limit = max(seconds(options.read_timeout), seconds(options.write_timeout or options.read_timeout))
    return limit if limit > 0 else None


def _pace(options: ConnectionOptions) -> Pace:
    dial, answer = seconds(options.dial_timeout), _read_timeout(options)
    return Pace(
        retries=options.max_retries,
        first=seconds(options.min_retry_interval),
        longest=options.longest_pause,
        connect=dial + answer if dial > 0 and answer is not None else None,
        timeout=answer,
    )


@final
class _PoolConnector:
    """Connections to one server, or to whichever the sentinels name."""

    def __init__(self, pool: Any, address: str) -> None:
        self._pool = pool
        self.address = address

    async def open(self) -> AbstractConnection:
        connection: AbstractConnection = await self._pool.get_connection()
        # From here on the lane watches the time: one timer instead of one per command.
        connection.socket_timeout = None
        return connection

    async def close(self, connection: AbstractConnection) -> None:
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)


@final
class _NodeConnector:
    """Connections to one node of a cluster."""

    def __init__(self, node: ClusterNode) -> None:
        self._node = node
        self.address = f"{node.host}:{node.port}"

    async def open(self) -> AbstractConnection:
        # Not from the node's own pool: redis-py closes what is in there whenever it looks at the cluster
        # anew.
        connection = self._node.connection_class(**self._node.connection_kwargs)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await self.close(connection)
            raise
        connection.socket_timeout = None
        return connection

    async def close(self, connection: AbstractConnection) -> None:
        await connection.disconnect(nowait=True)


@final
class Single:
    """One server, or the master behind sentinels."""

    def __init__(
        self, options: ConnectionOptions, certificates: Mapping[str, Any], rng: random.Random
    ) -> None:
        self._sentinel: Any = None
        self._pool: Any
        common = {**_connection_options(options, certificates), "db": options.db}
        # Each subscription has one; redis-py's own limit would be a hundred.
        common["max_connections"] = 2**31
        if options.failover:
            self._pool = self._behind_sentinels(options, certificates, common)
        else:
            ((host, port),) = options.hosts
            if options.enable_tls:
                common["connection_class"] = SSLConnection
            common["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
            self._pool = ConnectionPool(host=host, port=port, **common)
        self._pace = _pace(options)
        self._rng = rng
        self._connector = _PoolConnector(self._pool, options.host)
        self._lane = Lane(self._connector, self._pace, rng)
        self._blocking = Lane(self._connector, self._pace, rng, blocking=True)

    def _behind_sentinels(
        self, options: ConnectionOptions, certificates: Mapping[str, Any], common: Mapping[str, Any]
    ) -> Any:
        own = {
            **_connection_options(options, certificates),
            "username": options.sentinel_username or None,
            "password": options.sentinel_password or None,
            "retry": Retry(NoBackoff(), 0),
        }
        own["ssl"] = options.enable_tls
        self._sentinel = Sentinel(options.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
        return SentinelConnectionPool(  # type: ignore[no-untyped-call]
            options.sentinel_master_name, self._sentinel, ssl=options.enable_tls, **common
        )

    async def connect(self) -> None:
        connection = await self._pool.get_connection()
        try:
            await connection.send_command("PING", check_health=False)
            await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lane.run())
            group.create_task(self._blocking.run())

    async def aclose(self) -> None:
        await self._pool.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()

    def lane(self, key: str, *, blocking: bool = False) -> Lane:
        return self._blocking if blocking else self._lane

    def private(self, key: str, longest: float) -> Private:
        return Private(self._connector, self._pace.with_blocking(longest), self._rng, self._lane)

    def lanes(self) -> list[Lane]:
        return [self._lane]

    def connectors(self) -> list[Connector]:
        return [self._connector]

    def slot(self, key: str) -> int:
        return 0


@final
class Cluster:
    """A Redis Cluster. redis-py keeps the map of slots; a lane is started for each node when first needed."""

    def __init__(
        self, options: ConnectionOptions, certificates: Mapping[str, Any], rng: random.Random
    ) -> None:
        common = _connection_options(options, certificates)
        self._client: RedisCluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in options.hosts],
            retry=Retry(NoBackoff(), 0),
            # A move is learned from its redirection; nothing is thrown away for it.
            reinitialize_steps=0,
            ssl=options.enable_tls,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **common,
        )
        self._pace = _pace(options)
        self._rng = rng
        self._lanes: dict[tuple[str, bool], Lane] = {}
        self._errands: asyncio.Queue[Any] = asyncio.Queue()
        self._refreshing = False

    async def connect(self) -> None:
        await self._client.initialize()

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(await self._errands.get())

    async def aclose(self) -> None:
        while not self._errands.empty():
            self._errands.get_nowait().close()
        await self._client.aclose()

    def lane(self, key: str, *, blocking: bool = False) -> Lane:
        """Raises one of `TROUBLE` when no node is known for the key."""
        node = self._client.nodes_manager.get_node_from_slot(self.slot(key))
        return self._lane_of(node, blocking)

    def private(self, key: str, longest: float) -> Private:
        """Raises one of `TROUBLE` when no node is known for the key."""
        node = self._client.nodes_manager.get_node_from_slot(self.slot(key))
        pace = self._pace.with_blocking(longest)
        return Private(_NodeConnector(node), pace, self._rng, self._lane_of(node, False))

    def lanes(self) -> list[Lane]:
        return [self._lane_of(node, False) for node in self._client.get_primaries()]

    def connectors(self) -> list[Connector]:
        return [_NodeConnector(node) for node in self._client.get_primaries()]

    def slot(self, key: str) -> int:
        return key_slot(key.encode())

    def _lane_of(self, node: ClusterNode, blocking: bool) -> Lane:
        lane = self._lanes.get((node.name, blocking))
        if lane is None:
            lane = Lane(
                _NodeConnector(node),
                self._pace,
                self._rng,
                redirect=self._redirect,
                unreachable=self._refresh_soon,
                blocking=blocking,
            )
            self._lanes[node.name, blocking] = lane
            self._errands.put_nowait(lane.run())
        return lane

    def _redirect(self, command: Command) -> None:
        self._errands.put_nowait(self._follow(command))

    async def _follow(self, command: Command) -> None:
        """redis-py follows the redirection, and learns where the slot has gone."""
        try:
            reply = await self._client.execute_command(*fallback(command.arguments))
        except ResponseError as error:
            reply = error
        except TROUBLE as error:
            reply = Lost(str(error), sent=True)
        except BaseException:
            command.answer(Lost("the store is closed", sent=True))
            raise
        command.answer(reply)

    def _refresh_soon(self) -> None:
        if not self._refreshing:
            self._refreshing = True
            self._errands.put_nowait(self._refresh())

    async def _refresh(self) -> None:
        """A node is gone: asks the others who has its slots now."""
        try:
            await self._client.nodes_manager.initialize()
        except TROUBLE:
            return
        finally:
            self._refreshing = False


def make_topology(
    options: ConnectionOptions, certificates: Mapping[str, Any], rng: random.Random
) -> Topology:
    if options.type == "cluster":
        return Cluster(options, certificates, rng)
    return Single(options, certificates, rng)
