"""What the `certificates` fixture gives."""

from __future__ import annotations

import ssl
from typing import final

from attrs import frozen


@final
@frozen
class Certificates:
    """A certificate authority of our own, and one certificate for localhost and 127.0.0.1."""

    ca: bytes
    chain: bytes
    key: bytes
    chain_file: str
    key_file: str

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain_file, self.key_file)
        context.set_alpn_protocols(["h2"])
        return context

    def client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.decode())
        context.set_alpn_protocols(["h2"])
        return context
