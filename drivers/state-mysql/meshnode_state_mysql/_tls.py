"""The certificates that a connection string speaks of."""

from __future__ import annotations

import ssl
from pathlib import Path

from meshnode.errors import ConfigError, Problem
from meshnode_state_mysql._dsn import parse_dsn
from meshnode_state_mysql._options import Options

__all__ = ["tls_context"]


def tls_context(options: Options) -> ssl.SSLContext | None:
    """None without TLS, and for `preferred`, where nothing is checked and the server decides.

    Raises `ConfigError` for certificates that are none.
    """
    match parse_dsn(options.connection_string).tls:
        case "true":
            return _lenient(ssl.create_default_context())
        case "skip-verify":
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        case "custom":
            return _custom(options)
    return None


def _custom(options: Options) -> ssl.SSLContext:
    field = "pemPath" if options.pem_path else "pemContents"
    try:
        text = Path(options.pem_path).read_text("ascii") if options.pem_path else options.pem_contents
        context = ssl.create_default_context(cadata=text)
    except (OSError, ValueError) as error:
        message = f"has no certificates: {error}"
        raise ConfigError([Problem(message, field=field, remedy="certificates in PEM")]) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return _lenient(context)


def _lenient(context: ssl.SSLContext) -> ssl.SSLContext:
    """The certificates that MySQL makes for itself lack what the newest Pythons ask for, and Go does not."""
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
