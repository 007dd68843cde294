"""A connection string taken apart.

It has the form of the Go driver that daprd uses: `user:password@tcp(host:port)/?name=value&…`. Names that
the driver knows are its own; all others are the session's variables, with SQL for values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final
from urllib.parse import unquote_plus

from attrs import evolve, field, frozen

from meshnode.errors import ConfigError, Problem

__all__ = ["FIELD", "Dsn", "parse_dsn"]

FIELD = "connectionString"
TLS = ("false", "true", "skip-verify", "preferred", "custom")

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TCP = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>\d{1,5}))?")
_PORT = 3306

# How the Go driver talks and converts, which changes nothing that is stored or read here.
_UNUSED = frozenset(
    {
        "allowAllFiles", "allowFallbackToPlaintext", "allowNativePasswords", "charset", "checkConnLiveness",
        "clientFoundRows", "collation", "columnsWithAlias", "compress", "connectionAttributes",
        "interpolateParams", "loc", "maxAllowedPacket", "multiStatements", "parseTime", "readTimeout",
        "rejectReadOnly", "timeTruncate", "tinyInt1IsBool", "writeTimeout",
    }
)  # fmt: skip
_REFUSED = {
    "allowCleartextPasswords": "use another way to log in",
    "allowOldPasswords": "give the user a password of the present kind",
    "serverPubKey": "leave it out: the server is asked for its key",
}
_OFF = frozenset({"", "0", "f", "F", "false", "FALSE", "False"})


@final
@frozen
class Dsn:
    """`path` is the socket's, where `host` is empty. `timeout` is in seconds, for connecting."""

    user: str = ""
    password: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = _PORT
    path: str = ""
    tls: str = "false"
    timeout: float | None = None
    variables: Mapping[str, str] = field(factory=dict)

    @property
    def address(self) -> str:
        return self.path or (f"[{self.host}]" if ":" in self.host else self.host) + f":{self.port}"


def parse_dsn(text: str) -> Dsn:
    """Raises `ConfigError`, which never repeats the text, for there may be a password in it."""
    if not text:
        raise _problem("is empty", "user:password@tcp(host:3306)/")
    # As the Go driver reads it: the last one, wherever it stands.
    before, slash, after = text.rpartition("/")
    if not slash:
        raise _problem("has no /", "user:password@tcp(host:3306)/")
    name, _, query = after.partition("?")
    if name:
        raise _problem("names a database", "nothing between the last / and ?; schemaName has its place")
    login, _, place = before.rpartition("@")
    user, _, password = login.partition(":")
    return _with_parameters(evolve(_place(place), user=user, password=password), query)


def _place(text: str) -> Dsn:
    network, opened, address = text.partition("(")
    if opened and not address.endswith(")"):
        raise _problem("has an address without a closing )", "tcp(host:3306)")
    address = address.removesuffix(")")
    if network == "unix":
        return Dsn(host="", path=address or "/tmp/mysql.sock")
    if network not in ("", "tcp"):
        raise _problem("is for a kind of network that is not offered", "tcp or unix")
    match = _TCP.fullmatch(address)
    if match is None or int(match["port"] or _PORT) > 65535:
        raise _problem("has an address that is no host:port", "tcp(host:3306)")
    return Dsn(host=match["v6"] or match["name"] or "127.0.0.1", port=int(match["port"] or _PORT))


def _with_parameters(dsn: Dsn, query: str) -> Dsn:
    variables: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        value = unquote_plus(value)
        if name == "tls":
            dsn = evolve(dsn, tls=_tls(value))
        elif name == "timeout":
            dsn = evolve(dsn, timeout=_seconds(value))
        elif name in _REFUSED:
            if value not in _OFF:
                raise _problem(f"{name} is not offered", _REFUSED[name])
        elif name not in _UNUSED:
            if not _VARIABLE.fullmatch(name):
                raise _problem("has a parameter whose name means nothing", "escape & in values as %26")
            variables[name] = value
    return evolve(dsn, variables=variables)


def _tls(value: str) -> str:
    known = {"1": "true", "0": "false"}.get(value, value.lower())
    if known not in TLS:
        raise _problem("tls is none of the known ways", ", ".join(TLS))
    return known


def _seconds(text: str) -> float | None:
    """A Go duration; 0 means none."""
    if text == "0":
        return None
    if not text or _PART.sub("", text):
        raise _problem("timeout is no duration", "for example 5s or 500ms")
    return sum([float(number) * _UNITS[unit] for number, unit in _PART.findall(text)]) or None


def _problem(message: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(message, field=FIELD, remedy=remedy)])
