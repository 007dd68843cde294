"""The client: PyMongo's for asyncio, which lives behind the node's one trio-asyncio loop.

A `Client` is made and closed on the asyncio side; `call` is for trio's.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, final

import pymongo
import trio
import trio_asyncio
from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConfigurationError, DuplicateKeyError, InvalidURI
from pymongo.read_concern import ReadConcern

from meshnode.errors import ComponentUnavailable, ConfigError, Problem
from meshnode.interfaces import DriverContext
from meshnode_state_mongodb._errors import TROUBLE, translated
from meshnode_state_mongodb._options import Options

__all__ = ["Client", "Document", "on_asyncio"]

T = TypeVar("T")
Document = dict[str, Any]

# A daprd keeps bytes that are no UTF-8 in strings.
_CODEC: CodecOptions[Document] = CodecOptions(
    document_class=dict, tz_aware=True, tzinfo=UTC, unicode_decode_error_handler="surrogateescape"
)
_ATTEMPTS = 20
_FAREWELL = 2
"""Seconds."""
_MAJORITY = WriteConcern("majority")
_SNAPSHOT = ReadConcern("snapshot")

# What it logs are the errors it raises.
logging.getLogger("pymongo").setLevel(logging.CRITICAL)


async def on_asyncio(function: Callable[[], Awaitable[T]]) -> T:
    """From trio's side: the function's result; cancelling this cancels it."""
    result: T = await trio_asyncio.aio_as_trio(function)()  # type: ignore[attr-defined,no-untyped-call]
    return result


def _mongo(options: Options, context: DriverContext) -> AsyncMongoClient[Document]:
    """PyMongo passes over values that it cannot read, with a warning; `tls=ture` would mean no TLS."""
    field = "connectionString" if options.connection_string else "params" if options.params else "host"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            client: AsyncMongoClient[Document] = AsyncMongoClient(
                options.uri, connect=False, appname="meshnode"
            )
    except (ConfigurationError, InvalidURI, ValueError) as error:
        raise ConfigError([Problem(f"cannot be used: {error}", field=field)]) from None
    said = [str(one.message) for one in caught]
    problems = [Problem(text, field=field) for text in said if "nknown option" not in text]
    if problems:
        raise ConfigError(problems)
    for text in said:
        context.log.warning("%s: %s: %s", context.component, field, text)
    return client


@final
class Client:
    """`transactional` is known once it is open."""

    def __init__(self, options: Options, context: DriverContext) -> None:
        """Raises `ConfigError` for an address or parameters that are none."""
        self._options = options
        self._wall = context.wall
        self._ahead = timedelta(0)
        self._running: set[trio.CancelScope] = set()
        self._closed = False
        self.transactional = False
        self._mongo = _mongo(options, context)
        w = int(options.write_concern) if options.write_concern.isdigit() else options.write_concern or 1
        self.collection: AsyncCollection[Document] = self._mongo[options.database_name].get_collection(
            options.collection_name,
            codec_options=_CODEC,
            write_concern=WriteConcern(w=w, j=True),
            read_concern=ReadConcern(options.read_concern or "local"),
        )
        self._plain = self.collection.with_options(write_concern=_MAJORITY, read_concern=ReadConcern())

    async def open(self) -> None:
        with pymongo.timeout(self._options.timeout):
            hello = await self._hello()
            self.transactional = "setName" in hello or hello.get("msg") == "isdbgrid"
            await self._plain.create_index("_ttl", expireAfterSeconds=0)

    async def close(self) -> None:
        """Says goodbye first, which a server that is away would hold up for half a minute."""
        with pymongo.timeout(_FAREWELL):
            await self._mongo.close()

    async def ping(self) -> None:
        await self._hello()

    async def _hello(self) -> Document:
        """Asks the server who it is, and what time it has."""
        hello: Document = await self._mongo.admin.command("hello")
        local = hello.get("localTime")
        if isinstance(local, datetime):
            self._ahead = local.replace(tzinfo=UTC) - datetime.fromtimestamp(self._wall(), UTC)
        return hello

    def now(self) -> datetime:
        """The server's time, as far as it is known: other nodes and the server itself go by it."""
        return datetime.fromtimestamp(self._wall(), UTC) + self._ahead

    async def call(self, function: Callable[[], Awaitable[T]], *, writes: bool = False) -> T:
        """The function's result, within the component's time. Raises `ComponentError`."""

        async def run() -> T:
            with pymongo.timeout(self._options.timeout):
                return await function()

        if self._closed:
            raise self._gone()
        with trio.CancelScope() as scope:
            self._running.add(scope)
            try:
                return await on_asyncio(run)
            except TROUBLE as error:
                raise translated(self._options.place, error, writes=writes) from error
            finally:
                self._running.discard(scope)
        raise self._gone()

    def _gone(self) -> ComponentUnavailable:
        return ComponentUnavailable(f"mongodb at {self._options.place}: the component is closed")

    def end_calls(self) -> None:
        """On trio's side: what is under way ends with an error, and nothing new begins."""
        self._closed = True
        for scope in self._running:
            scope.cancel()

    async def transaction(
        self, body: Callable[[AsyncClientSession, AsyncCollection[Document]], Awaitable[None]]
    ) -> None:
        """On the asyncio side: begun again where another write was quicker."""
        async with self._mongo.start_session() as session:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    await session.with_transaction(
                        lambda inner: body(inner, self._plain),
                        read_concern=_SNAPSHOT,
                        write_concern=_MAJORITY,
                    )
                except DuplicateKeyError:
                    # Somebody else has just made a document that was to be made here; now it is there.
                    if attempt == _ATTEMPTS:
                        raise
                else:
                    return
