"""What a node takes from outside itself, network, clock and chance, and the first things it makes of them:
listeners and the channel to its application. A test brings its own surroundings; nothing above this module
knows the difference.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ssl import SSLContext
from typing import Any

import trio
from attrs import evolve, field, frozen

from meshnode.app import AppChannel
from meshnode.config.nodeoptions import NodeOptions
from meshnode.defaults import Naming
from meshnode.telemetry.logs import LogTail
from meshnode.transport import AnyListener, Backoff, KeepAlive, Limits, open_channel, open_listeners

__all__ = ["Surroundings", "api_listeners", "join_address", "limits_of", "open_app"]

_LOOPBACK = "127.0.0.1"
_UNLIMITED = (1 << 32) - 1
_APP_BACKOFF = Backoff(initial=0.1, maximum=1.0)
"""An application restarts on the same machine within seconds; gRPC's two minutes between attempts are for
the network.
"""


@frozen
class Surroundings:
    """The defaults are the real ones. `naming` is name resolution already chosen; None leaves it to the
    resources.
    """

    listen: Callable[[str], Awaitable[Sequence[AnyListener]]] = open_listeners
    dial: Callable[[str], Awaitable[trio.abc.Stream]] | None = None
    naming: Naming | None = None
    wall: Callable[[], float] = time.time
    rng: random.Random = field(factory=random.Random)
    tail: LogTail = field(factory=LogTail)


async def api_listeners(options: NodeOptions, around: Surroundings) -> list[AnyListener]:
    """Where applications call the node.

    Loopback unless addresses are given, as Dapr's injector sets it in a pod: the API is for the application
    beside the node.
    """
    if options.unix_domain_socket is not None:
        # Whole, because whoever is told it may work in another folder.
        path = options.unix_domain_socket.absolute() / f"dapr-{options.app_id}-grpc.socket"
        return list(await around.listen(f"unix:{path}"))
    found: list[AnyListener] = []
    port = options.grpc_port
    try:
        for address in options.listen_addresses or (_LOOPBACK,):
            found.extend(await around.listen(join_address(address, port)))
            port = port or int(found[0].address.rpartition(":")[2])
    except BaseException:
        for listener in found:
            listener.close()
        raise
    return found


def join_address(host: str, port: int) -> str:
    """`host:port`, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def limits_of(options: NodeOptions) -> Limits:
    """The transport's limits with what the flags say of them."""
    limits = Limits(message_size=_UNLIMITED if options.max_body_size is None else options.max_body_size)
    if options.max_header_size is not None:
        limits = evolve(limits, header_list_size=options.max_header_size)
    return limits


@asynccontextmanager
async def open_app(options: NodeOptions, around: Surroundings, limits: Limits) -> AsyncIterator[AppChannel]:
    """The channel into the application; without `--app-port` one that refuses every call."""
    if options.app_port is None:
        yield AppChannel(None)
        return
    address = join_address(options.app_channel_address, options.app_port)
    target: Any = address if around.dial is None else partial(around.dial, address)
    tls = _unverified_tls() if options.app_tls else None
    async with open_channel(
        target,
        ssl=tls,
        authority=address,
        limits=limits,
        backoff=_APP_BACKOFF,
        rng=around.rng,
        keepalive=KeepAlive(interval=300.0),
    ) as channel:
        yield AppChannel(
            channel, address=address, token=options.app_api_token, max_concurrency=options.app_max_concurrency
        )


def _unverified_tls() -> SSLContext:
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
