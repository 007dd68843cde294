"""Opening a component: certificates, a first answer, and connections that close with it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from meshnode.errors import ComponentError, ConfigError, Problem, Status
from meshnode.interfaces import DriverContext
from meshnode_etcd._client import Client, on_asyncio
from meshnode_etcd._link import Member
from meshnode_etcd._login import NO_USER, Login
from meshnode_etcd._members import Members
from meshnode_etcd._options import ConnectionOptions

__all__ = ["open_client"]

_GRACE_SECONDS = 5.0


@asynccontextmanager
async def open_client(
    options: ConnectionOptions, context: DriverContext, refusal: type[ComponentError]
) -> AsyncIterator[Client]:
    """Raises `ComponentUnavailable` when no member answers."""
    if not options.tls_enable and (options.ca or options.cert):
        context.log.warning("%s: without tlsEnable, ca, cert and key have no effect", context.component)
    tls = _tls(options) if options.tls_enable else None
    members = Members(
        [Member(host, port, tls) for host, port in options.addresses],
        Login(options.username, options.password, context.log),
        options.dial_timeout.total_seconds(),
        options.request_timeout.total_seconds(),
    )
    client = Client(options, members, refusal)
    try:
        await _first_answer(client)
        yield client
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _GRACE_SECONDS):
            await on_asyncio(members.aclose)


async def _first_answer(client: Client) -> None:
    try:
        await client.ping()
    except ComponentError as error:
        if error.code is Status.UNAUTHENTICATED:
            problem = Problem(str(error), field="password", remedy="`etcdctl user list` names the users")
        elif NO_USER in error.message:
            problem = Problem(str(error), field="username", remedy="set username and password")
        else:
            raise
        raise ConfigError([problem]) from error


def _tls(options: ConnectionOptions) -> ssl.SSLContext:
    # An authority that is given stands instead of the system's, not beside them.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if options.ca else ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    if options.ca:
        _read("ca", lambda: context.load_verify_locations(cadata=options.ca))
    if options.cert:
        # OpenSSL takes a certificate of one's own from files only; it has read them when this returns.
        with TemporaryDirectory(prefix="meshnode-etcd-") as folder:
            paths = Path(folder, "cert.pem"), Path(folder, "key.pem")
            for path, text in zip(paths, (options.cert, options.key), strict=True):
                path.touch(mode=0o600)
                path.write_text(text)
            _read("cert", lambda: context.load_cert_chain(*paths))
    return context


def _read(field: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (ssl.SSLError, ValueError) as error:
        remedy = "a PEM text, beginning with -----BEGIN"
        raise ConfigError([Problem(f"cannot be used: {error}", field=field, remedy=remedy)]) from error
