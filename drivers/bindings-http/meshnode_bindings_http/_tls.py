"""Certificates, as text or out of files. Blocks."""

from __future__ import annotations

import ssl
from pathlib import Path
from tempfile import TemporaryDirectory

from meshnode.errors import ConfigError, Problem
from meshnode_bindings_http._options import Options

__all__ = ["tls_context"]


def tls_context(options: Options) -> ssl.SSLContext:
    """Raises `ConfigError` for certificates that cannot be used."""
    context = _trusting(options)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.renegotiation == "RenegotiateNever":
        context.options |= ssl.OP_NO_RENEGOTIATION
    if options.client_cert:
        certificate = _pem("MTLSClientCert", options.client_cert)
        key = _pem("MTLSClientKey", options.client_key)
        with TemporaryDirectory(prefix="meshnode-http-") as folder:  # OpenSSL reads them from files only
            path = Path(folder, "pair.pem")
            path.touch(mode=0o600)
            path.write_text(f"{key}\n{certificate}\n")
            try:
                context.load_cert_chain(path)
            except (ssl.SSLError, OSError) as error:
                raise _problem("MTLSClientCert", f"does not go with MTLSClientKey: {error}") from error
    return context


def _trusting(options: Options) -> ssl.SSLContext:
    if not options.root_ca:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=_pem("MTLSRootCA", options.root_ca))
    except (ssl.SSLError, ValueError) as error:
        raise _problem("MTLSRootCA", f"holds no certificate: {error}") from error


def _pem(field: str, text: str) -> str:
    if "-----BEGIN " in text:
        return text
    try:
        return Path(text).read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _problem(field, f"is neither PEM nor the name of a file that can be read: {reason}") from error


def _problem(field: str, message: str) -> ConfigError:
    return ConfigError([Problem(message, field=field)])
