"""The segments of `dapr.io/enc/v1`: a stream cut into pieces of 64 KB, each encrypted on its own. No I/O.

Segment i is under the nonce `nonce prefix (7) || i (4, big-endian) || last (1)`, its tag of 16 bytes behind
it: pieces that are changed, missing, doubled, moved or cut off do not decrypt. Only a document without
segments is not vouched for: that is what the scheme makes of an empty plaintext. What is held is one
segment, and what it was fed with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, final

from meshnode.blocks.crypto.manifest import SchemeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

__all__ = ["SEGMENT", "TAG", "Segments"]

SEGMENT = 64 << 10
"""Bytes of plaintext in a segment; the last one may have fewer."""

TAG = 16

_MOST = 1 << 32
"""Segments that a document may have."""


@final
class Segments:
    """Encrypts or decrypts one document, piece by piece."""

    def __init__(self, cipher: str, key: bytes, nonce_prefix: bytes, *, decrypt: bool) -> None:
        self._aead = _aead(cipher, key)
        self._prefix = nonce_prefix
        self._work: Callable[[bytes, bytes, None], bytes] = (
            self._aead.decrypt if decrypt else self._aead.encrypt
        )
        self._size = SEGMENT + TAG if decrypt else SEGMENT
        self._held = bytearray()
        self._number = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The segments that are complete with this; the last of all shows only in `finish`. Use up the
        iterator before feeding on. Raises `SchemeError`.
        """
        self._held += data
        while len(self._held) > self._size:  # one byte more tells that this is not the last one
            segment = bytes(self._held[: self._size])
            del self._held[: self._size]
            yield self._next(segment, last=False)

    def finish(self) -> bytes:
        """What is left; empty only when the whole document is. Raises `SchemeError`."""
        if not self._held and self._number == 0:
            return b""
        segment = bytes(self._held)
        self._held.clear()
        return self._next(segment, last=True)

    def _next(self, segment: bytes, *, last: bool) -> bytes:
        # Imported with the ciphers; a node that encrypts nothing does without.
        from cryptography.exceptions import InvalidTag

        if self._number >= _MOST:
            raise SchemeError("input stream is too large")
        nonce = self._prefix + self._number.to_bytes(4, "big") + bytes([last])
        try:
            done = self._work(nonce, segment, None)
        except InvalidTag:
            raise SchemeError(f"error processing segment {self._number}: failed to decrypt segment") from None
        self._number += 1
        return done


def _aead(cipher: str, key: bytes) -> AESGCM | ChaCha20Poly1305:
    from cryptography.hazmat.primitives.ciphers import aead

    return aead.AESGCM(key) if cipher == "AES-GCM" else aead.ChaCha20Poly1305(key)
