"""Algorithms of key pairs: RSA encryption; RSA, ECDSA and Ed25519 signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import (
    MGF1,
    OAEP,
    PSS,
    AsymmetricPadding,
    PKCS1v15,
)
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from meshnode.errors import InvalidArgument
from meshnode.interfaces import CipherRequest, SignatureRequest
from meshnode_crypto_dapr._keys import Key

__all__ = ["ASYMMETRIC", "SIGNING", "decrypt", "encrypt", "sign", "verify"]

_SHA: Mapping[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_OAEP = {"RSA-OAEP": hashes.SHA1(), **{f"RSA-OAEP-{bits}": sha for bits, sha in _SHA.items()}}

ASYMMETRIC = frozenset({"RSA1_5", *_OAEP})
SIGNING = frozenset({f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in _SHA} | {"EdDSA"})


def encrypt(key: Key, request: CipherRequest) -> bytes:
    """With the public key. Raises `InvalidArgument`."""
    public = key.public
    if not isinstance(public, rsa.RSAPublicKey):
        raise InvalidArgument("key type mismatch")
    try:
        return public.encrypt(request.data, _padding(request))
    except ValueError:
        raise InvalidArgument("the data is too long for the key") from None


def decrypt(key: Key, request: CipherRequest) -> bytes:
    """With the private key. Raises `InvalidArgument`."""
    if not isinstance(key.material, rsa.RSAPrivateKey):
        raise InvalidArgument("key type mismatch")
    try:
        return key.material.decrypt(request.data, _padding(request))
    except ValueError:
        raise InvalidArgument("decryption error") from None


def sign(key: Key, request: SignatureRequest) -> bytes:
    """With the private key; ECDSA signatures are ASN.1. Raises `InvalidArgument`."""
    name, private = request.algorithm, key.material
    try:
        if name == "EdDSA" and isinstance(private, ed25519.Ed25519PrivateKey):
            return private.sign(request.digest)
        if name.startswith("ES") and isinstance(private, ec.EllipticCurvePrivateKey):
            return private.sign(request.digest, ec.ECDSA(Prehashed(_hash_of_length(request.digest))))
        if name[:2] in ("RS", "PS") and isinstance(private, rsa.RSAPrivateKey):
            return private.sign(request.digest, _signing(name, PSS.MAX_LENGTH), Prehashed(_SHA[name[2:]]))
    except ValueError:
        raise InvalidArgument("the digest does not fit the algorithm or the key") from None
    raise InvalidArgument("key type mismatch")


def verify(key: Key, request: SignatureRequest) -> bool:
    """With the public key. Raises `InvalidArgument` for a key or digest that does not fit; a signature that
    is wrong in any way is False.
    """
    name, public = request.algorithm, key.public
    try:
        if name == "EdDSA" and isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(request.signature, request.digest)
        elif name.startswith("ES") and isinstance(public, ec.EllipticCurvePublicKey):
            hashed = ec.ECDSA(Prehashed(_hash_of_length(request.digest)))
            public.verify(request.signature, request.digest, hashed)
        elif name[:2] in ("RS", "PS") and isinstance(public, rsa.RSAPublicKey):
            hashed_rsa = Prehashed(_SHA[name[2:]])
            public.verify(request.signature, request.digest, _signing(name, PSS.AUTO), hashed_rsa)
        else:
            raise InvalidArgument("key type mismatch")
    except InvalidSignature:
        return False
    except ValueError:
        raise InvalidArgument("the digest does not fit the algorithm or the key") from None
    return True


def _padding(request: CipherRequest) -> AsymmetricPadding:
    if request.algorithm == "RSA1_5":
        return PKCS1v15()
    hashed = _OAEP[request.algorithm]
    return OAEP(MGF1(hashed), hashed, request.associated_data or None)


def _signing(name: str, salt: Any) -> AsymmetricPadding:
    """The reference's salts are as long as they can be, and whatever length a signature has is accepted."""
    return PKCS1v15() if name.startswith("RS") else PSS(MGF1(_SHA[name[2:]]), salt)


def _hash_of_length(digest: bytes) -> hashes.HashAlgorithm:
    """ECDSA takes any digest, whatever its name says; only its length counts here."""
    for hashed in _SHA.values():
        if hashed.digest_size == len(digest):
            return hashed
    raise InvalidArgument("the digest is not of SHA-256, SHA-384 or SHA-512")
