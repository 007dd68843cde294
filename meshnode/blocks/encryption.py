"""Automatic encryption of state values.

The format is Dapr's: base64 of (12-byte nonce + AES-GCM ciphertext and tag), then `||` and the name of the
key, which is the name of the secret it came from. `primaryEncryptionKey` encrypts; `secondaryEncryptionKey`
still decrypts, so keys can be rotated. Keys are hex text of 16, 24 or 32 bytes. `cryptography` does the work.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, final

from attrs import field, frozen

from meshnode.errors import StateError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["EncryptionKey", "ValueCipher"]

_SEPARATOR = b"||"
_NONCE_BYTES = 12


@frozen
class EncryptionKey:
    """`name` is stored beside each value; `key` is hex text."""

    name: str
    key: str = field(repr=False)


@final
class ValueCipher:
    """Encrypts with the primary key, decrypts with either."""

    def __init__(self, store: str, primary: EncryptionKey, secondary: EncryptionKey | None = None) -> None:
        """Raises ValueError when a key is not hex text of a legal length."""
        self._store = store
        self._name = primary.name.encode()
        self._primary = _aead(primary)
        self._by_name = {self._name: self._primary}
        if secondary is not None:
            self._by_name.setdefault(secondary.name.encode(), _aead(secondary))

    def encrypt(self, value: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._primary.encrypt(nonce, value, None)
        return base64.b64encode(nonce + sealed) + _SEPARATOR + self._name

    def decrypt(self, stored: bytes) -> bytes:
        """Raises `StateError` when the value was not encrypted with one of the keys. Nothing stays nothing,
        as in Dapr.
        """
        from cryptography.exceptions import InvalidTag

        if not stored:
            return b""
        sealed, _, name = stored.rpartition(_SEPARATOR)
        if not sealed or not name:
            raise self._failed("encryption key name not found on record")
        aead = self._by_name.get(name)
        if aead is None:
            raise self._failed(f"no key named {name.decode(errors='replace')!r} is configured")
        try:
            raw = base64.b64decode(sealed, validate=True)
            return aead.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None)
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise self._failed("the record is damaged, or the key is another one") from error

    def _failed(self, why: str) -> StateError:
        return StateError(f"could not decrypt data for state store {self._store}: {why}")


def _aead(key: EncryptionKey) -> AESGCM:
    # Imported here: most nodes encrypt nothing, and the import costs tens of milliseconds at start.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        raw = bytes.fromhex(key.key)
    except ValueError:
        raise ValueError(f"encryption key {key.name!r} is not hexadecimal text") from None
    if len(raw) not in (16, 24, 32):
        raise ValueError(f"encryption key {key.name!r} has {len(raw)} bytes; 16, 24 or 32 are allowed")
    return AESGCM(raw)
