"""The metadata fields that say where etcd is and how to talk to it. The first six are Dapr's."""

from __future__ import annotations

import re
from datetime import timedelta

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["ConnectionOptions", "parse_endpoints"]

_PORT = 2379
_ENDPOINT = re.compile(
    r"(?:(?P<scheme>https?)://)?(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^:/\[\]\s]+))(?::(?P<port>\d{1,5}))?/?"
)
_FORM = "for example 192.168.0.1:2379,192.168.0.2:2379"


def parse_endpoints(text: str) -> list[tuple[str, str, int]]:
    """Scheme (may be empty), host and port of each. Raises `ValueError`."""
    found = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        match = _ENDPOINT.fullmatch(part)
        if match is None or not 0 < int(match["port"] or _PORT) < 65536:
            raise ValueError(f"{part!r} is no host:port")
        found.append((match["scheme"] or "", match["v6"] or match["name"], int(match["port"] or _PORT)))
    if not found:
        raise ValueError("is empty")
    return found


@frozen
class ConnectionOptions:
    """What every component type on etcd has in its metadata.

    The one class here that others inherit from: a component's metadata is one flat table, so what the types
    have in common cannot be a field of each.
    """

    endpoints: str = option("endpoints", "`host:port` of each member, with commas.")
    key_prefix_path: str = option(
        "keyPrefixPath", "Path of the keys: the key `k` is kept as `<keyPrefixPath>/k`.", default=""
    )
    tls_enable: bool = option("tlsEnable", "Connect with TLS.", default=False)
    ca: str = option(
        "ca", "Authority that signed the servers' certificates, PEM; without it the system's.", default=""
    )
    cert: str = option("cert", "Client certificate, PEM.", default="", secret=True)
    key: str = option("key", "Client certificate's key, PEM.", default="", secret=True)
    username: str = option("username", "User, where etcd's authentication is enabled.", default="")
    password: str = option("password", "The user's password.", default="", secret=True)
    dial_timeout: timedelta = option(
        "dialTimeout", "How long connecting to a member may take.", default=timedelta(seconds=5)
    )
    request_timeout: timedelta = option(
        "requestTimeout", "How long a member's answer may take.", default=timedelta(seconds=5)
    )

    def __attrs_post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ConfigError(problems)

    def problems(self) -> list[Problem]:
        """What is wrong with the fields; a component type adds what is wrong with its own."""
        problems = self._bad_endpoints()
        if bool(self.cert) != bool(self.key):
            missing = "key" if self.cert else "cert"
            problems.append(Problem("certificate and key go together", field=missing))
        if bool(self.username) != bool(self.password):
            missing = "password" if self.username else "username"
            problems.append(Problem("user and password go together", field=missing))
        problems += [
            Problem("must be longer than nothing", field=name, remedy="for example 5s")
            for name, given in (("dialTimeout", self.dial_timeout), ("requestTimeout", self.request_timeout))
            if given <= timedelta()
        ]
        return problems

    def _bad_endpoints(self) -> list[Problem]:
        try:
            found = parse_endpoints(self.endpoints)
        except ValueError as error:
            return [Problem(str(error), field="endpoints", remedy=_FORM)]
        wrong = "http" if self.tls_enable else "https"
        if any(scheme == wrong for scheme, _, _ in found):
            message = f"an address begins with {wrong}://, but tlsEnable is {str(self.tls_enable).lower()}"
            return [Problem(message, field="endpoints", remedy="leave the scheme out, or set tlsEnable")]
        return []

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [(host, port) for _, host, port in parse_endpoints(self.endpoints)]
