"""The scheme `dapr.io/enc/v1`: its header and the keys that follow from a file key. No I/O.

A document is a header of three lines, each ended by a line feed, and segments right behind it:

    dapr.io/enc/v1
    {"k":…,"kw":…,"wfk":…,"cph":…,"np":…}
    base64 of HMAC-SHA-256 over both lines, line feeds included

The file key is 32 random bytes, wrapped by a key of the component. From it follow, by HKDF-SHA-256, the key
of the MAC (no salt, info `header`) and the key of the segments (salt: the nonce prefix, info `payload`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import final

from attrs import field, frozen

from meshnode.blocks.crypto.manifest import Manifest, SchemeError

__all__ = ["FILE_KEY", "MAX_HEADER", "SCHEME", "DocumentKeys", "Header", "HeaderReader", "header_of"]

SCHEME = b"dapr.io/enc/v1"
FILE_KEY = 32
"""Bytes of a file key."""

MAX_HEADER = 64 << 10
"""Bytes that a header may have."""

_LINES = 3


@frozen
class DocumentKeys:
    """What one document is authenticated and encrypted with."""

    header: bytes = field(repr=False)
    payload: bytes = field(repr=False)

    @classmethod
    def derive(cls, file_key: bytes, nonce_prefix: bytes) -> DocumentKeys:
        return cls(_hkdf(file_key, b"", b"header"), _hkdf(file_key, nonce_prefix, b"payload"))


@frozen
class Header:
    """A header as it was read: the manifest, and what its MAC has to be checked against."""

    manifest: Manifest
    line: bytes
    mac: bytes

    def verify(self, keys: DocumentKeys) -> None:
        """Raises `SchemeError` unless the header was made with that file key."""
        if not hmac.compare_digest(_mac(keys, self.line), self.mac):
            raise SchemeError("failed to validate the document's signature")


def header_of(manifest: Manifest, keys: DocumentKeys) -> bytes:
    """Raises `SchemeError` for a header that nobody would read."""
    line = manifest.encode()
    header = b"\n".join((SCHEME, line, base64.b64encode(_mac(keys, line)), b""))
    if len(header) > MAX_HEADER:
        raise SchemeError("header is too long")
    return header


@final
class HeaderReader:
    """Collects pieces until the header is whole."""

    def __init__(self) -> None:
        self._read = bytearray()

    def feed(self, data: bytes) -> tuple[Header, bytes] | None:
        """The header and what came behind it, or None when more is needed. Raises `SchemeError`."""
        self._read += data
        whole = self._read.count(b"\n") >= _LINES
        if not self._read.startswith((SCHEME + b"\n")[: len(self._read)]):
            named = b"\n" in self._read
            raise SchemeError(f"invalid header: {'unsupported scheme' if named else 'scheme name not found'}")
        if not whole:
            if len(self._read) >= MAX_HEADER:
                raise SchemeError("invalid header: message authentication code not found")
            return None
        _, line, mac, rest = bytes(self._read).split(b"\n", _LINES)
        if not line or not mac or len(self._read) - len(rest) > MAX_HEADER:
            raise SchemeError("invalid header: invalid format")
        try:
            decoded = base64.b64decode(mac, validate=True)
        except binascii.Error:
            raise SchemeError("failed to decode header's signature") from None
        return Header(Manifest.decode(line), line, decoded), rest

    def finish(self) -> SchemeError:
        """What is wrong with a document that ended within its header."""
        missing = ("scheme name", "manifest", "message authentication code")
        return SchemeError(f"invalid header: {missing[self._read.count(10)]} not found")


def _mac(keys: DocumentKeys, line: bytes) -> bytes:
    return hmac.digest(keys.header, SCHEME + b"\n" + line + b"\n", "sha256")


def _hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256 and one block of output, which is all that is needed."""
    extracted = hmac.digest(salt or bytes(hashlib.sha256().digest_size), key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")
