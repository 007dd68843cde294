"""Whose certificates are believed. Reads files, so it is called in a thread."""

from __future__ import annotations

import ssl
from pathlib import Path

from meshnode.errors import ComponentError
from meshnode_secretstores_vault._options import Options

__all__ = ["tls_context"]


def tls_context(options: Options) -> ssl.SSLContext:
    """Raises `ComponentError` for certificates that cannot be read."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    texts = _certificates(options)
    if texts:
        # Only these are trusted, not the system's as well.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name, text in texts:
        try:
            context.load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise ComponentError(f"{name} holds no certificates in PEM") from error
    return context


def _certificates(options: Options) -> list[tuple[str, str]]:
    if options.ca_pem:
        return [("caPem", options.ca_pem)]
    try:
        if options.ca_path:
            files = sorted(one for one in Path(options.ca_path).rglob("*") if one.is_file())
            if not files:
                raise ComponentError(f"caPath: there is no file in {options.ca_path}")
        else:
            files = [Path(options.ca_cert)] if options.ca_cert else []
        return [(str(one), one.read_text(encoding="utf-8")) for one in files]
    except (OSError, UnicodeDecodeError) as error:
        raise ComponentError(f"the certificates cannot be read: {error}") from error
