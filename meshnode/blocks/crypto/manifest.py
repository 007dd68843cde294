"""The manifest of `dapr.io/enc/v1`: what a reader must know to decrypt a document.

One line of compact JSON: `k` the key's name (may be missing), `kw` the number of the wrapping algorithm,
`wfk` the wrapped file key, `cph` the number of the cipher, `np` the nonce prefix of 7 bytes; bytes in base64.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from attrs import field, frozen

__all__ = ["CIPHERS", "NONCE_PREFIX", "WRAPPING", "Manifest", "SchemeError", "wrapping_named"]

NONCE_PREFIX = 7
"""Bytes of a nonce that are the document's own."""

WRAPPING = {"A256KW": 1, "A128CBC-NOPAD": 2, "A192CBC-NOPAD": 3, "A256CBC-NOPAD": 4, "RSA-OAEP-256": 5}
"""Algorithms that wrap file keys, and their numbers."""

CIPHERS = {"AES-GCM": 1, "CHACHA20-POLY1305": 2}
"""Ciphers of segments, and their numbers."""

_ALIASES = {"AES": "A256KW", "RSA": "RSA-OAEP-256"}
_WRAPPING_OF = {number: name for name, number in WRAPPING.items()}
_CIPHER_OF = {number: name for name, number in CIPHERS.items()}


class SchemeError(Exception):
    """The document, or what is asked for, is not of the scheme; the message may be shown."""


@frozen
class Manifest:
    """`wrapping` and `cipher` are names from `WRAPPING` and `CIPHERS`."""

    wrapping: str
    wrapped_key: bytes
    cipher: str
    nonce_prefix: bytes = field(repr=False)
    key_name: str = ""

    def encode(self) -> bytes:
        fields: dict[str, Any] = {"k": self.key_name} if self.key_name else {}
        fields |= {
            "kw": WRAPPING[self.wrapping],
            "wfk": base64.b64encode(self.wrapped_key).decode(),
            "cph": CIPHERS[self.cipher],
            "np": base64.b64encode(self.nonce_prefix).decode(),
        }
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decode(cls, line: bytes) -> Manifest:
        """Raises `SchemeError`, which does not say what is wrong: nothing vouches for the line yet."""
        try:
            fields = json.loads(line)
            manifest = cls(
                _WRAPPING_OF[_number(fields["kw"])],
                base64.b64decode(fields["wfk"], validate=True),
                _CIPHER_OF[_number(fields["cph"])],
                base64.b64decode(fields["np"], validate=True),
                fields.get("k") or "",
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise SchemeError("invalid header: invalid manifest") from None
        right = len(manifest.nonce_prefix) == NONCE_PREFIX and manifest.wrapped_key
        if not right or not isinstance(manifest.key_name, str):
            raise SchemeError("invalid header: invalid manifest")
        return manifest


def wrapping_named(name: str) -> str:
    """The algorithm of that name, in any case, or of that alias. Raises `SchemeError`."""
    folded = name.upper()
    folded = _ALIASES.get(folded, folded)
    if folded not in WRAPPING:
        raise SchemeError(f"option Algorithm is not valid: algorithm {folded} is not supported")
    return folded


def _number(value: Any) -> int:
    if type(value) is not int:  # true is no number, nor is 1.0
        raise TypeError
    return value
