"""Cryptography providers: the Protocol and its value types.

A provider works with keys that the application knows by name only. Algorithms have Dapr's names, which are
JOSE's: `A256GCM`, `C20P`, `RSA-OAEP-256`, `ES256`… Errors: `ComponentUnavailable` (worth a retry),
`InvalidArgument` for what can never succeed: a key that is not there or does not fit, an algorithm that is
not known, data that does not decrypt. The node tells an application little of them, for whoever learns why
something does not decrypt may learn what it holds.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from attrs import field, frozen

__all__ = ["CipherRequest", "CipherResult", "CryptoProvider", "PublicKey", "SignatureRequest"]


@frozen
class PublicKey:
    """The public part of a key, as PEM (PKIX) and as JWK; `name` may name its version, too."""

    name: str
    pem: str
    jwk: str


@frozen
class CipherRequest:
    """Data to encrypt or decrypt, or a key to wrap or unwrap. `tag` is for decrypting where the algorithm
    has one; algorithms that authenticate no more than the data pass over `associated_data`.
    """

    key_name: str
    algorithm: str
    data: bytes = field(repr=False)
    nonce: bytes = b""
    tag: bytes = b""
    associated_data: bytes = b""


@frozen
class CipherResult:
    """What was encrypted; `tag` is empty where the algorithm has none."""

    data: bytes
    tag: bytes = b""


@frozen
class SignatureRequest:
    """`digest` is the hash of the message, with EdDSA the message itself; `signature` is for verifying."""

    key_name: str
    algorithm: str
    digest: bytes
    signature: bytes = b""


@runtime_checkable
class CryptoProvider(Protocol):
    """What a crypto driver yields. All methods may be called concurrently."""

    async def get_key(self, name: str) -> PublicKey:
        """The public part of an asymmetric key; a symmetric one is as good as not there."""
        ...

    async def encrypt(self, request: CipherRequest) -> CipherResult: ...

    async def decrypt(self, request: CipherRequest) -> bytes: ...

    async def wrap_key(self, request: CipherRequest, *, literal: bool = False) -> CipherResult:
        """`data` is a key as JWK, PEM, base64 or plain bytes; with `literal` it is always plain bytes.

        Wrapped are the bytes of a symmetric key, and DER of any other (PKCS#8 or PKIX).
        """
        ...

    async def unwrap_key(self, request: CipherRequest) -> bytes: ...

    async def sign(self, request: SignatureRequest) -> bytes: ...

    async def verify(self, request: SignatureRequest) -> bool: ...
