"""Algorithms of symmetric keys: AES in CBC, GCM and key wrap, AES-CBC with HMAC (RFC 7518), ChaCha20-Poly1305
and XChaCha20-Poly1305.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.padding import PKCS7

from meshnode.errors import InvalidArgument
from meshnode.interfaces import CipherRequest, CipherResult

__all__ = ["SYMMETRIC", "decrypt", "encrypt"]

_CHACHA = frozenset({"C20P", "C20PKW", "XC20P", "XC20PKW"})
_HASHES = {"A128CBC-HS256": "sha256", "A192CBC-HS384": "sha384", "A256CBC-HS512": "sha512"}
_BITS = ("128", "192", "256")
_BLOCK, _TAG = 16, 16

SYMMETRIC = frozenset(
    {f"A{bits}{mode}" for bits in _BITS for mode in ("CBC", "CBC-NOPAD", "GCM", "KW")}
    | _CHACHA
    | _HASHES.keys()
)


def encrypt(key: bytes, request: CipherRequest) -> CipherResult:
    """Raises `InvalidArgument` for a key, a nonce or data of the wrong length."""
    name = request.algorithm
    if name in _CHACHA or name.endswith("GCM"):
        cipher, nonce = _aead(key, name, request.nonce)
        sealed = cipher.encrypt(nonce, request.data, request.associated_data or None)
        return CipherResult(sealed[:-_TAG], sealed[-_TAG:])
    if name in _HASHES:
        mac_key, key = _halves(key, name)
        data = _cbc_encrypt(key, request.nonce, request.data, padded=True)
        return CipherResult(data, _mac(mac_key, name, request, data))
    _fits(key, name)
    if name.endswith("KW"):
        return CipherResult(_wrong_is_refused(aes_key_wrap, key, request.data))
    return CipherResult(_cbc_encrypt(key, request.nonce, request.data, padded=not name.endswith("NOPAD")))


def decrypt(key: bytes, request: CipherRequest) -> bytes:
    """Raises `InvalidArgument`, also for what was not encrypted so."""
    name = request.algorithm
    if name in _CHACHA or name.endswith("GCM"):
        cipher, nonce = _aead(key, name, request.nonce)
        if len(request.tag) != _TAG:
            raise InvalidArgument("invalid tag")
        try:
            return cipher.decrypt(nonce, request.data + request.tag, request.associated_data or None)
        except InvalidTag:
            raise InvalidArgument("message authentication failed") from None
    if name in _HASHES:
        mac_key, key = _halves(key, name)
        if not hmac.compare_digest(_mac(mac_key, name, request, request.data), request.tag):
            raise InvalidArgument("message authentication failed")
        return _cbc_decrypt(key, request.nonce, request.data, padded=True)
    _fits(key, name)
    if name.endswith("KW"):
        return _wrong_is_refused(aes_key_unwrap, key, request.data)
    return _cbc_decrypt(key, request.nonce, request.data, padded=not name.endswith("NOPAD"))


def _aead(key: bytes, name: str, nonce: bytes) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
    """The cipher and the nonce it takes."""
    extended = name.startswith("X")
    if len(nonce) != (24 if extended else 12):
        raise InvalidArgument("invalid nonce")
    if name not in _CHACHA:
        _fits(key, name)
        return AESGCM(key), nonce
    if len(key) != 32:
        raise InvalidArgument("key type mismatch")
    if extended:
        return ChaCha20Poly1305(_hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]
    return ChaCha20Poly1305(key), nonce


def _hchacha20(key: bytes, nonce: bytes) -> bytes:
    """The subkey of XChaCha20 (draft-irtf-cfrg-xchacha section 2.2): ChaCha20's rounds without the final
    addition, which is taken off again here.
    """
    block = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    before = struct.unpack("<16I", b"expand 32-byte k" + key + nonce)
    after = struct.unpack("<16I", block)
    words = [(a - b) & 0xFFFFFFFF for a, b in zip(after, before, strict=True)]
    return struct.pack("<8I", *words[:4], *words[12:])


def _fits(key: bytes, name: str) -> None:
    if len(key) * 8 != int(name[1:4]):
        raise InvalidArgument("key type mismatch")


def _halves(key: bytes, name: str) -> tuple[bytes, bytes]:
    """The MAC's key and the cipher's."""
    half = int(name[1:4]) // 8
    if len(key) != 2 * half:
        raise InvalidArgument("key type mismatch")
    return key[:half], key[half:]


def _mac(key: bytes, name: str, request: CipherRequest, data: bytes) -> bytes:
    associated = request.associated_data
    content = associated + request.nonce + data + (len(associated) * 8).to_bytes(8, "big")
    return hmac.digest(key, content, _HASHES[name])[: len(key)]


def _cbc_encrypt(key: bytes, nonce: bytes, data: bytes, *, padded: bool) -> bytes:
    if len(nonce) != _BLOCK:
        raise InvalidArgument("invalid nonce")
    if padded:
        padder = PKCS7(_BLOCK * 8).padder()
        data = padder.update(data) + padder.finalize()
    elif len(data) % _BLOCK:
        raise InvalidArgument("invalid plaintext length")
    worker = Cipher(AES(key), CBC(nonce)).encryptor()
    return worker.update(data) + worker.finalize()


def _cbc_decrypt(key: bytes, nonce: bytes, data: bytes, *, padded: bool) -> bytes:
    if len(nonce) != _BLOCK:
        raise InvalidArgument("invalid nonce")
    if len(data) % _BLOCK:
        raise InvalidArgument("invalid ciphertext length")
    worker = Cipher(AES(key), CBC(nonce)).decryptor()
    plain = worker.update(data) + worker.finalize()
    if not padded:
        return plain
    unpadder = PKCS7(_BLOCK * 8).unpadder()
    try:
        return unpadder.update(plain) + unpadder.finalize()
    except ValueError:
        raise InvalidArgument("invalid padding") from None


def _wrong_is_refused(work: Callable[[bytes, bytes], bytes], key: bytes, data: bytes) -> bytes:
    try:
        return work(key, data)
    except (ValueError, InvalidUnwrap):
        raise InvalidArgument("the key cannot be wrapped or unwrapped") from None
