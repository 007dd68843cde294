"""Where the broker is and how to get in: connection strings, TLS, logging in."""

from __future__ import annotations

import ssl
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final
from urllib.parse import unquote, urlsplit

from attrs import evolve, field, frozen

from meshnode.errors import Problem

__all__ = ["Address", "Tls", "parse_address", "tls_problems"]

_PORTS = {"amqp": 5672, "amqps": 5671}
_FORM = "for example amqp://user:password@host:5672/vhost"


@final
@frozen
class Address:
    """One broker. `external`: the login is the client certificate's, not user and password."""

    scheme: str
    host: str
    port: int
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    external: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def encrypted(self) -> bool:
        return self.scheme == "amqps"


def parse_address(text: str, *, user: str = "", password: str = "") -> Address:
    """A connection string; `user` and `password` come before those in it. Raises `ValueError`, without the
    text, which may hold a password.
    """
    parts = urlsplit(text.strip())
    if parts.scheme not in _PORTS:
        raise ValueError(f"does not begin with amqp:// or amqps://; {_FORM}")
    if not parts.hostname or "," in parts.netloc:
        raise ValueError(f"names no host, or several; {_FORM}")
    if parts.query or parts.fragment:
        raise ValueError("has parameters behind the address; use the metadata fields")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"has no valid port; {_FORM}") from None
    address = Address(parts.scheme, parts.hostname, port or _PORTS[parts.scheme])
    if parts.username:
        user, password = user or unquote(parts.username), password or unquote(parts.password or "")
    if user:
        address = evolve(address, user=user, password=password or address.password)
    if len(parts.path) > 1:
        address = evolve(address, vhost=unquote(parts.path[1:]))
    return address


@final
@frozen
class Tls:
    """Certificates, PEM."""

    ca_cert: str = ""
    client_cert: str = ""
    client_key: str = field(default="", repr=False)

    def context(self) -> ssl.SSLContext:
        """Raises `ssl.SSLError` where the texts are no certificates."""
        context = ssl.create_default_context(cadata=self.ca_cert or None)
        if self.client_cert:
            with TemporaryDirectory(prefix="meshnode-rabbitmq-") as folder:
                paths = [Path(folder, name) for name in ("cert.pem", "key.pem")]
                for path, text in zip(paths, (self.client_cert, self.client_key), strict=True):
                    path.touch(mode=0o600)
                    path.write_text(text)
                context.load_cert_chain(paths[0], paths[1])
        return context


def tls_problems(tls: Tls, *, external: bool, encrypted: bool, external_name: str) -> list[Problem]:
    """What daprd would quietly leave out, and the user believe to have."""
    problems = []
    remedy = "begin the address with amqps://"
    if bool(tls.client_cert) != bool(tls.client_key):
        missing = "clientKey" if tls.client_cert else "clientCert"
        problems.append(Problem("certificate and key go together", field=missing))
    if external and not (tls.client_cert and tls.ca_cert):
        problems.append(Problem("needs caCert, clientCert and clientKey", field=external_name))
    if not encrypted:
        fields = {"caCert": tls.ca_cert, "clientCert": tls.client_cert, external_name: external}
        problems += [
            Problem("has no effect on a connection without TLS", field=name, remedy=remedy)
            for name, value in fields.items()
            if value
        ]
    elif not problems:
        try:
            tls.context()
        except (ssl.SSLError, ValueError) as error:
            problems.append(Problem(f"no usable certificate or key: {error}", field="caCert"))
    return problems
