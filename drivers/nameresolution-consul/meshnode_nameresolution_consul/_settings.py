"""Where the agent is and how to talk to it: the settings, the environment where they say nothing, and
certificates. Reads files, so it is called in a thread.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from attrs import field, frozen

from meshnode.errors import ComponentError, ConfigError, Problem
from meshnode_nameresolution_consul import _shapes as shapes

__all__ = ["Settings", "settings"]


@final
@frozen
class Settings:
    """`socket` is the path of a Unix socket, or empty."""

    url: str
    socket: str
    token: str = field(repr=False)
    login: tuple[str, str] | None = field(repr=False)
    server_name: str
    tls: ssl.SSLContext | None
    query: Mapping[str, str]


def settings(client: Mapping[str, Any], env: Mapping[str, str]) -> Settings:
    """Raises `ConfigError` or, for files, `ComponentError`."""
    given = shapes.read(shapes.CLIENT, client, "client", [])
    tls = {**_tls_from(env), **given.get("TLSConfig", {})}
    scheme, address = _address(given, env)
    query = {"dc": given.get("Datacenter", "")}
    if given.get("WaitTime"):
        query["wait"] = f"{round(given['WaitTime'] * 1000)}ms"
    unix = scheme == "unix"
    return Settings(
        url="http://localhost" if unix else f"{scheme}://{address.rstrip('/')}",
        socket=address if unix else "",
        token=_token(given, env),
        login=_login(given, env),
        server_name=tls.get("Address", ""),
        tls=_context(tls) if scheme == "https" else None,
        query={name: value for name, value in query.items() if value},
    )


def _address(given: Mapping[str, Any], env: Mapping[str, str]) -> tuple[str, str]:
    address = given.get("Address") or env.get("CONSUL_HTTP_ADDR") or "127.0.0.1:8500"
    usual = "https" if env.get("CONSUL_HTTP_SSL", "").lower() in ("1", "t", "true") else "http"
    scheme = given.get("Scheme") or usual
    before, mark, rest = address.partition("://")
    if mark:
        address = rest
        # Whoever has asked for TLS does not lose it again.
        scheme = scheme if before == "http" else before
    if scheme not in ("http", "https", "unix") or not address or any(one.isspace() for one in address):
        remedy = "such as 127.0.0.1:8500, https://consul:8501 or unix:///run/consul.sock"
        raise ConfigError([Problem("is no agent's address", field="client.address", remedy=remedy)])
    return scheme, address


def _token(given: Mapping[str, Any], env: Mapping[str, str]) -> str:
    """That of a file goes before the other, as in Consul's own client. Read once."""
    token = given.get("Token") or env.get("CONSUL_HTTP_TOKEN", "")
    path = given.get("TokenFile") or env.get("CONSUL_HTTP_TOKEN_FILE", "")
    if path:
        try:
            token = Path(path).read_text(encoding="utf-8").strip() or token
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ComponentError(f"the token file {path} cannot be read: {reason}") from None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ComponentError("the Consul token holds characters that no token has")
    return token


def _login(given: Mapping[str, Any], env: Mapping[str, str]) -> tuple[str, str] | None:
    if "HTTPAuth" in given:
        return given["HTTPAuth"].get("Username", ""), given["HTTPAuth"].get("Password", "")
    if env.get("CONSUL_HTTP_AUTH"):
        name, _, password = env["CONSUL_HTTP_AUTH"].partition(":")
        return name, password
    return None


def _tls_from(env: Mapping[str, str]) -> dict[str, Any]:
    names = {
        "Address": "CONSUL_TLS_SERVER_NAME",
        "CAFile": "CONSUL_CACERT",
        "CAPath": "CONSUL_CAPATH",
        "CertFile": "CONSUL_CLIENT_CERT",
        "KeyFile": "CONSUL_CLIENT_KEY",
    }
    found: dict[str, Any] = {name: env[key] for name, key in names.items() if env.get(key)}
    if env.get("CONSUL_HTTP_SSL_VERIFY", "").lower() in ("0", "f", "false"):
        found["InsecureSkipVerify"] = True
    return found


def _context(tls: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.get("CAFile") or None)
        if tls.get("CAPath"):
            for one in sorted(Path(tls["CAPath"]).iterdir()):
                context.load_verify_locations(cafile=one)
        if tls.get("CertFile"):
            context.load_cert_chain(tls["CertFile"], tls.get("KeyFile") or None)
    except (OSError, ssl.SSLError) as error:
        raise ComponentError(f"Consul's certificates cannot be read: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.get("InsecureSkipVerify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
