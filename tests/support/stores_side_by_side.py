"""The state stores that a daprd and a meshnode both have, on servers of the tests' own, as components that
both load from the same YAML text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from attrs import frozen
from support.etcd_servers import etcd_server
from support.install_etcd import find_etcd
from support.install_mariadb import find_mariadb
from support.install_secantus import find_secantus
from support.mariadb_servers import mariadb_server
from support.postgres_servers import find_postgres, postgres_server
from support.redis_servers import find_redis_server, redis_server
from support.secantus_servers import secantus_server

__all__ = ["KINDS", "Kind", "component", "shared_servers"]

S = TypeVar("S")


@frozen
class Kind:
    """A type of store in a version, and what it can do at a daprd."""

    type: str
    version: str = "v1"
    server: str = ""
    """Which of the servers it is on."""
    metadata: str = ""
    """A flow sequence's items, with `WHERE` for the server's address."""
    queries: bool = False

    @property
    def name(self) -> str:
        return f"{self.type}-{self.version}"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("redis", server="redis", metadata='{name: redisHost, value: "WHERE"}'),
        Kind("sqlite", server="sqlite", metadata='{name: connectionString, value: "WHERE"}'),
        Kind(
            "postgresql",
            server="postgres",
            metadata='{name: connectionString, value: "WHERE"}, {name: tableName, value: state1}',
            queries=True,
        ),
        Kind(
            "postgresql",
            "v2",
            server="postgres",
            metadata='{name: connectionString, value: "WHERE"}, {name: tablePrefix, value: v2_}',
        ),
        Kind(
            "etcd",
            server="etcd",
            metadata='{name: endpoints, value: "WHERE"}, {name: keyPrefixPath, value: one}',
        ),
        Kind(
            "etcd",
            "v2",
            server="etcd",
            metadata='{name: endpoints, value: "WHERE"}, {name: keyPrefixPath, value: two}',
        ),
        Kind("mysql", server="mariadb", metadata='{name: connectionString, value: "WHERE"}'),
        Kind(
            "mongodb",
            server="mongodb",
            # Without the name of a replica set a daprd has no transactions.
            metadata='{name: host, value: "WHERE"}, {name: params, value: "?replicaSet=secantus"}',
            queries=True,
        ),
    )
}


def component(kind: Kind, where: str, name: str = "", more: str = "") -> str:
    """YAML of it; `more` are further items of its metadata."""
    metadata = ", ".join(filter(None, (kind.metadata.replace("WHERE", where), more)))
    return f"""---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name or kind.name}}}
spec:
  type: state.{kind.type}
  version: {kind.version}
  metadata: [{metadata}]
"""


def _redis(folder: Path) -> AbstractContextManager[str] | None:
    return _at(redis_server(folder), lambda server: server.address) if find_redis_server() else None


def _sqlite(folder: Path) -> AbstractContextManager[str]:
    return nullcontext(str(folder / "state.db"))


def _postgres(folder: Path) -> AbstractContextManager[str] | None:
    return _at(postgres_server(), lambda server: server.url) if find_postgres() else None


def _etcd(folder: Path) -> AbstractContextManager[str] | None:
    return _at(etcd_server(folder), lambda server: server.address) if find_etcd() else None


def _mariadb(folder: Path) -> AbstractContextManager[str] | None:
    return _at(mariadb_server(folder, *_ANY_CHARACTER), lambda server: server.dsn) if find_mariadb() else None


def _mongodb(folder: Path) -> AbstractContextManager[str] | None:
    return _at(secantus_server(folder), lambda server: server.address) if find_secantus() else None


_ANY_CHARACTER = ("--character-set-server=utf8mb4",)
"""In keys, too: MySQL's default, and MariaDB's from 11.6 on. Before, a daprd's table has no unicode keys."""

_SERVERS: Mapping[str, Callable[[Path], AbstractContextManager[str] | None]] = {
    "redis": _redis,
    "sqlite": _sqlite,
    "postgres": _postgres,
    "etcd": _etcd,
    "mariadb": _mariadb,
    "mongodb": _mongodb,
}


@contextmanager
def _at(running: AbstractContextManager[S], where: Callable[[S], str]) -> Iterator[str]:
    with running as server:
        yield where(server)


@contextmanager
def shared_servers(folder: Path) -> Iterator[Mapping[str, str]]:
    """The addresses of those that this machine has, by name."""
    with ExitStack() as stack:
        wheres = {}
        for name, find in _SERVERS.items():
            server = find(folder)
            if server is not None:
                wheres[name] = stack.enter_context(server)
        yield wheres
