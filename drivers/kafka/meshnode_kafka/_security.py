"""How a connection is secured: the arguments aiokafka takes for it."""

from __future__ import annotations

import ssl
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from meshnode.errors import ConfigError, Problem
from meshnode_kafka._options import Options

__all__ = ["security"]

_MECHANISMS = {"SHA-256": "SCRAM-SHA-256", "SHA-512": "SCRAM-SHA-512"}


def security(options: Options) -> dict[str, Any]:
    """Raises `ConfigError` for certificates that are none."""
    password = options.authentication == "password"
    protocol = ("SASL_" if password else "") + ("SSL" if options.tls else "PLAINTEXT")
    arguments: dict[str, Any] = {"security_protocol": protocol}
    if options.tls:
        arguments["ssl_context"] = _tls(options)
    if password:
        arguments |= {
            "sasl_mechanism": _MECHANISMS.get(options.sasl_mechanism.upper(), "PLAIN"),
            "sasl_plain_username": options.sasl_username,
            "sasl_plain_password": options.sasl_password,
        }
    return arguments


def _tls(options: Options) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=options.ca_cert or None)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError([Problem(f"cannot be used: {error}", field="caCert")]) from error
    if options.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.authentication == "mtls":
        _load_pair(context, options)
    return context


def _load_pair(context: ssl.SSLContext, options: Options) -> None:
    """The ssl module reads them from files only; they are gone again when it has."""
    with TemporaryDirectory(prefix="meshnode-kafka-") as folder:
        paths = []
        for name, text in (("certificate", options.client_cert), ("key", options.client_key)):
            path = Path(folder, name)
            path.touch(mode=0o600)
            path.write_text(text)
            paths.append(str(path))
        try:
            context.load_cert_chain(*paths)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError([Problem(f"cannot be used: {error}", field="clientCert")]) from error
