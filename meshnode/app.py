"""The channel back into the application: invocations, proxied calls and, later, events.

One gRPC channel to `app_channel_address:app_port`. Every call into the application passes here, so this is
where the concurrency limit (`--app-max-concurrency`), the application's API token and its health are
applied, once each.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import final

import trio
from grpclib.const import Status

from meshnode.config.nodeoptions import AppHealthOptions
from meshnode.errors import ErrorInfoDetail, MeshError
from meshnode.security.tokens import TOKEN_HEADER
from meshnode.transport import Channel, Deadline

__all__ = ["AppChannel", "AppUnavailable", "watch_application"]

_log = logging.getLogger("meshnode.app")

_TOKEN = TOKEN_HEADER.encode()


@final
class AppUnavailable(MeshError):
    """There is no application to call, or it reports unhealthy. Dapr answers INTERNAL."""

    status = Status.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(message, ErrorInfoDetail("ERR_APP_CHANNEL_NOT_FOUND"))


@final
class AppChannel:
    """The application beside this node.

    `channel` None means that the node was started without `--app-port`. `healthy` is set by whoever probes
    the application.
    """

    def __init__(
        self,
        channel: Channel | None,
        *,
        address: str = "",
        token: str | None = None,
        max_concurrency: int | None = None,
    ) -> None:
        self._channel = channel
        self.address = address
        self._token = token.encode() if token else b""
        self.own_metadata = {TOKEN_HEADER: token} if token else None
        """The same as `own_headers`, as generated stubs take it."""
        self._limiter = trio.Semaphore(max_concurrency) if max_concurrency else None
        self.max_concurrency = max_concurrency
        self.healthy = True
        self._changed = trio.Event()

    @property
    def configured(self) -> bool:
        return self._channel is not None

    @property
    def channel(self) -> Channel:
        """The channel, for a call that has been `admitted`. Raises `AppUnavailable`."""
        if self._channel is None:
            raise AppUnavailable("app channel is not initialized")
        if not self.healthy:
            raise AppUnavailable("app is not in a healthy state")
        return self._channel

    @property
    def limited(self) -> bool:
        return self._limiter is not None

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Holds one of the places of `--app-max-concurrency`; only worth entering where `limited`."""
        limiter = self._limiter
        if limiter is None:
            yield
            return
        async with limiter:
            yield

    def own_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """What every call into the application carries besides the caller's metadata."""
        return ((_TOKEN, self._token),) if self._token else ()

    def set_healthy(self, healthy: bool) -> None:
        """Open or close the gate in front of the application."""
        if self.healthy != healthy:
            self.healthy = healthy
            self._changed.set()
            self._changed = trio.Event()

    async def wait_unhealthy(self) -> None:
        while self.healthy:
            await self._changed.wait()

    async def wait_healthy(self) -> None:
        while not self.healthy:
            await self._changed.wait()

    async def wait_ready(self) -> None:
        """Return once the application's port accepts a connection; the channel's own backoff paces the
        attempts.
        """
        if self._channel is not None:
            await self._channel.wait_ready()

    async def probe(self, deadline: Deadline) -> bool:
        """One health check: AppCallbackHealthCheck.HealthCheck, which an application without it fails, as in
        Dapr.
        """
        from meshnode.transport import GRPCError
        from meshnode.wire.dapr.proto.runtime import v1 as runtime
        from meshnode.wire.google.protobuf import Empty

        if self._channel is None:
            return False
        try:
            stub = runtime.AppCallbackHealthCheckStub(self._channel)
            await stub.health_check(Empty(), deadline=deadline, metadata=self.own_metadata)
        except GRPCError:
            return False
        return True


async def watch_application(
    app: AppChannel, probes: AppHealthOptions | None, on_ready: Callable[[], None]
) -> None:
    """Call `on_ready` once the application can be called, then probe its health for as long as the node
    lives.

    As in Dapr the first successful probe makes it healthy, and `threshold` failed ones in a row make it
    unhealthy: calls are then refused at the gate until a probe succeeds again.
    """
    if app.configured:
        _log.info("Waiting for the application on %s", app.address)
        if probes is not None:
            app.set_healthy(False)
        await app.wait_ready()
        _log.info("Application discovered on %s", app.address)
    on_ready()
    if probes is None or not app.configured:
        return
    failures = 0
    while True:
        began = trio.current_time()
        if await app.probe(Deadline.after(probes.timeout)):
            failures = 0
            if not app.healthy:
                _log.info("App entered healthy status")
                app.set_healthy(True)
        else:
            failures += 1
            if app.healthy and failures >= probes.threshold:
                _log.warning("App entered un-healthy status after %d failed probes", failures)
                app.set_healthy(False)
        await trio.sleep_until(began + probes.interval)
