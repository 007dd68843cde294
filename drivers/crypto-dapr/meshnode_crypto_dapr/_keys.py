"""A key, and how it is read from text and bytes. No I/O."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TypeAlias

from attrs import field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from meshnode.errors import InvalidArgument

__all__ = ["Key", "PrivateKey", "PublicPart", "key_of_pem", "serialised", "symmetric_key"]

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicPart: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_PRIVATE = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)
_PUBLIC = (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+|[A-Za-z0-9_-]+")
_USES = {
    "sig": frozenset({"sign", "verify"}),
    "enc": frozenset({"encrypt", "decrypt", "wrapKey", "unwrapKey"}),
}


@frozen
class Key:
    """`material` is a symmetric key's bytes, a private key, or a public one. `algorithm`, `use` and
    `operations` limit what it is for; empty, they do not.
    """

    material: bytes | PrivateKey | PublicPart = field(repr=False)
    kid: str = ""
    algorithm: str = ""
    use: str = ""
    operations: frozenset[str] = frozenset()

    @property
    def public(self) -> PublicPart:
        """Raises `InvalidArgument` for a symmetric key."""
        if isinstance(self.material, bytes):
            raise InvalidArgument("key type mismatch")
        return self.material.public_key() if isinstance(self.material, _PRIVATE) else self.material

    def check(self, operation: str, algorithm: str) -> None:
        """Raises `InvalidArgument` for what the key is not for; operations have the names of `key_ops`."""
        allowed = self.operations or _USES.get(self.use)
        if allowed is not None and operation not in allowed:
            raise InvalidArgument(f"key cannot perform the '{operation}' operation")
        if self.algorithm and self.algorithm != algorithm:
            raise InvalidArgument(f"key cannot be used with algorithm '{algorithm}'")


def key_of_pem(data: bytes) -> Key:
    """Raises `InvalidArgument` for what is no PEM, or no kind of key that is known."""
    try:
        if b"PRIVATE KEY-----" in data:
            found: object = load_pem_private_key(data, password=None)
        else:
            found = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidArgument("the key is not PEM that can be read") from error
    if not isinstance(found, (*_PRIVATE, *_PUBLIC)):
        raise InvalidArgument("invalid key type")
    return Key(found)


def symmetric_key(data: bytes) -> Key:
    """Base64 of either alphabet, padded or not, in lines or not; what is no base64 is the key itself."""
    text = data.translate(None, b"\r\n").rstrip(b"=")
    if _BASE64.fullmatch(text):
        try:
            return Key(base64.b64decode(text + b"=" * (-len(text) % 4), altchars=_alphabet(text)))
        except binascii.Error:
            pass  # its length is impossible: not base64
    return Key(data)


def serialised(key: Key) -> bytes:
    """The bytes to wrap: a symmetric key's own, PKCS#8 of a private one, PKIX of a public one."""
    material = key.material
    if isinstance(material, bytes):
        return material
    if isinstance(material, _PRIVATE):
        return material.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _alphabet(text: bytes) -> bytes | None:
    return b"-_" if b"-" in text or b"_" in text else None
