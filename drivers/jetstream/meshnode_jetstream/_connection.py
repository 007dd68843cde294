"""The connection, through nats-py (asyncio): opened, renewed, and what asks something over it.

nats-py reconnects by itself and takes its subscriptions along. What it gives up for good (the server has
refused it, for instance) is dialled anew by the next who needs it.

Functions with `aio_` in their name run on the asyncio side. Both sides run in one thread, so a callback there
may set a trio event.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, final

import nkeys  # type: ignore[import-untyped]
import trio
import trio_asyncio
from nats import errors
from nats.aio.client import Client

from meshnode.errors import (
    ComponentError,
    ComponentUnavailable,
    ConfigError,
    InvalidArgument,
    Problem,
    PubSubError,
    Status,
)
from meshnode.interfaces import DriverContext
from meshnode_jetstream._inbox import Inbox
from meshnode_jetstream._options import Options

__all__ = ["ApiError", "Connection", "on_asyncio", "open_connection", "translated"]

T = TypeVar("T")

_ANSWER_SECONDS = 5.0
"""For an answer of the server: as long as Dapr's component waits."""
_CLOSING_SECONDS = 5.0
_FULL = (10077, 10047, 10122)
"""Numbers of the errors of a stream, or of a whole JetStream, that may hold no more."""


@final
class ApiError(Exception):
    """JetStream's own refusal."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.get("description", "unknown error"))
        self.code = int(error.get("code", 500))
        self.number = int(error.get("err_code", 0))


async def on_asyncio(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Runs the function on the asyncio side; cancelling this cancels it."""
    result: T = await trio_asyncio.aio_as_trio(function)(*arguments)  # type: ignore[attr-defined,no-untyped-call]
    return result


def translated(error: Exception, where: str) -> ComponentError | InvalidArgument:
    """An error of nats-py or of JetStream as one of ours."""
    if isinstance(error, errors.NoRespondersError):
        return ComponentUnavailable(f"{where}: no stream takes it, or JetStream is not ready")
    if isinstance(error, (errors.MaxPayloadError, errors.BadSubjectError, ValueError)):
        return InvalidArgument(f"{where}: {error}")
    if isinstance(error, ApiError):
        if error.number in _FULL:
            return PubSubError(f"{where}: {error}", status=Status.RESOURCE_EXHAUSTED)
        if error.code == 503:
            return ComponentUnavailable(f"{where}: {error}")
        status = Status.NOT_FOUND if error.code == 404 else None
        return PubSubError(f"{where}: {error}", status=status)
    words = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return ComponentUnavailable(f"{where}: {words.removeprefix('nats: ')}")


@final
class Connection:
    """Made by `open_connection`."""

    def __init__(self, options: Options, context: DriverContext, tls: ssl.SSLContext | None) -> None:
        self._options = options
        self._log = context.log
        self._component = context.component
        self._tls = tls
        self._client = Client()
        self._dialling = trio.Lock()
        self._trouble: Exception | None = None
        self._change = trio.Event()
        self._requests: set[trio.CancelScope] = set()
        self.generation = 0
        """Counts the connections so far, that is, how often the server has forgotten pull requests."""

    @property
    def where(self) -> str:
        return f"nats at {self._options.nats_url.rpartition('@')[2]}"

    @property
    def is_up(self) -> bool:
        return self._client.is_connected

    @property
    def is_closed(self) -> bool:
        return self._client.is_closed

    @property
    def prefix(self) -> str:
        return self._options.prefix

    def warn(self, words: str) -> None:
        self._log.warning("%s: %s: %s", self._component, self.where, words)

    async def change(self) -> None:
        """Returns when the connection has been renewed or given up."""
        await self._change.wait()

    async def client(self) -> Client:
        """The connected client. Raises `ComponentUnavailable`."""
        if self._client.is_closed:
            async with self._dialling:
                if self._client.is_closed:
                    await self.dial()
        if not self._client.is_connected:
            await trio.lowlevel.checkpoint()
            raise ComponentUnavailable(f"{self.where}: the connection is lost and not renewed yet")
        return self._client

    async def dial(self) -> None:
        self._trouble = None
        client = Client()
        try:
            await on_asyncio(self._aio_dial, client)
        except (errors.Error, OSError, TimeoutError) as error:
            raise translated(self._trouble or error, self.where) from error
        self._client = client
        self._changed()

    async def _aio_dial(self, client: Client) -> None:
        options = self._options
        login: dict[str, Any] = {}
        if options.jwt:
            login = {"user_jwt_cb": options.jwt.encode, "signature_cb": partial(_sign, options.seed_key)}
        elif options.token and not options.tls_client_cert:
            login = {"token": options.token}
        try:
            await client.connect(
                servers=options.servers,
                name=options.name,
                tls=self._tls,
                error_cb=self._aio_failed,
                disconnected_cb=self._aio_lost,
                reconnected_cb=self._aio_reconnected,
                closed_cb=self._aio_closed,
                connect_timeout=5,
                reconnect_time_wait=0.5,  # type: ignore[arg-type]
                # Only for this first time, which must end.
                max_reconnect_attempts=1,
                ping_interval=20,
                **login,
            )
        except BaseException:
            await client.close()
            raise
        client.options["max_reconnect_attempts"] = -1

    async def _aio_failed(self, error: Exception) -> None:
        if "Authorization" not in str(self._trouble):  # a refusal says more than what follows it
            self._trouble = error
        self._log.debug("%s: %s: %r", self._component, self.where, error)

    async def _aio_lost(self) -> None:
        for scope in self._requests:
            scope.cancel()

    async def _aio_reconnected(self) -> None:
        self._log.info("%s: connected to %s again", self._component, self.where)
        self._changed()

    async def _aio_closed(self) -> None:
        self._changed()

    def _changed(self) -> None:
        self.generation += 1
        self._change.set()
        self._change = trio.Event()

    async def while_connected(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Runs a function that waits for answers, which never come when the connection is lost meanwhile."""
        with trio.CancelScope() as scope:
            self._requests.add(scope)
            try:
                return await on_asyncio(function, *arguments)
            finally:
                self._requests.discard(scope)
        raise ComponentUnavailable(f"{self.where}: the connection was lost before the answer came")

    async def api(self, subject: str, request: Any = None) -> Any:
        """One request to JetStream's API. Raises `ApiError`, `ComponentUnavailable`.

        Its answer also says that the server has taken everything sent before. nats-py's own `flush` must not
        be used for that: one that is cancelled, or comes too late, ends the reading of the connection.
        """
        client = await self.client()
        body = b"" if request is None else json.dumps(request).encode()
        try:
            return await self.while_connected(aio_request, client, f"{self.prefix}.{subject}", body)
        except (errors.Error, OSError, TimeoutError) as error:
            raise translated(error, f"{self.where}: {subject}") from error

    async def send(self, *messages: tuple[str, bytes, str]) -> None:
        """Subject, data and reply subject of each. While the connection is being renewed they are kept for
        it; over one that was given up they are not sent.
        """
        try:
            await on_asyncio(self._aio_send, messages)
        except (errors.Error, OSError, TimeoutError) as error:
            self._log.debug("%s: not sent to %s: %r", self._component, self.where, error)

    async def _aio_send(self, messages: tuple[tuple[str, bytes, str], ...]) -> None:
        for subject, data, reply in messages:
            await self._client.publish(subject, data, reply)

    async def leave(self, inbox: Inbox) -> None:
        await on_asyncio(inbox.aio_leave, self._client)

    async def aclose(self) -> None:
        await on_asyncio(self._client.close)


async def aio_request(client: Client, subject: str, data: bytes, headers: Any = None) -> Any:
    """The answer's JSON. Raises `ApiError` and nats-py's errors."""
    answer = await client.request(subject, data, timeout=_ANSWER_SECONDS, headers=headers)
    result = json.loads(answer.data)
    if "error" in result:
        raise ApiError(result["error"])
    return result


def _sign(seed: str, nonce: str) -> bytes:
    pair = nkeys.from_seed(bytearray(seed.strip().encode()))
    signature = base64.b64encode(pair.sign(nonce.encode()))
    pair.wipe()
    return signature


@contextmanager
def _tls_files(options: Options) -> Iterator[list[str]]:
    """The client certificate as files, which is all that Python's ssl takes."""
    with TemporaryDirectory(prefix="meshnode-nats-") as folder:
        paths = []
        for name, text in (("cert", options.tls_client_cert), ("key", options.tls_client_key)):
            if "-----BEGIN" not in text:
                paths.append(text)
                continue
            path = Path(folder, name)
            path.touch(mode=0o600)
            path.write_text(text)
            paths.append(str(path))
        yield paths


def _tls_context(options: Options) -> ssl.SSLContext | None:
    if not options.tls_client_cert:
        return None
    context = ssl.create_default_context()
    with _tls_files(options) as (certificate, key):
        context.load_cert_chain(certificate, key)
    return context


@asynccontextmanager
async def open_connection(options: Options, context: DriverContext) -> AsyncIterator[Connection]:
    """Connected when it is yielded. Raises `ComponentUnavailable`."""
    try:
        tls = _tls_context(options)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([Problem(f"cannot be used: {error}", field="tls_client_cert")]) from error
    connection = Connection(options, context, tls)
    await connection.dial()
    try:
        yield connection
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING_SECONDS):
            await connection.aclose()
