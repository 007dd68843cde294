"""The operations, whatever the keys come from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import final

import trio
from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshnode.errors import InvalidArgument
from meshnode.interfaces import CipherRequest, CipherResult, PublicKey, SignatureRequest
from meshnode_crypto_dapr import _asymmetric, _symmetric
from meshnode_crypto_dapr._jwk import jwk_of, parse_key
from meshnode_crypto_dapr._keys import Key, serialised

__all__ = ["KeyProvider"]


@final
class KeyProvider:
    """A `CryptoProvider` over a function that finds keys by name; it raises `InvalidArgument` for one that is
    not there.
    """

    def __init__(self, find: Callable[[str], Awaitable[Key]]) -> None:
        self._find = find

    async def get_key(self, name: str) -> PublicKey:
        key = await self._find(name)
        if isinstance(key.material, bytes):
            raise InvalidArgument("key not found")
        public = key.public
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return PublicKey(name, pem, jwk_of(public, key.kid))

    async def encrypt(self, request: CipherRequest) -> CipherResult:
        return await self._encrypt(request, "encrypt")

    async def decrypt(self, request: CipherRequest) -> bytes:
        return await self._decrypt(request, "decrypt")

    async def wrap_key(self, request: CipherRequest, *, literal: bool = False) -> CipherResult:
        if not literal:
            request = evolve(request, data=serialised(parse_key(request.data)))
        return await self._encrypt(request, "wrapKey")

    async def unwrap_key(self, request: CipherRequest) -> bytes:
        return await self._decrypt(request, "unwrapKey")

    async def sign(self, request: SignatureRequest) -> bytes:
        key = await self._for_signature(request, "sign")
        return await trio.to_thread.run_sync(partial(_asymmetric.sign, key, request))

    async def verify(self, request: SignatureRequest) -> bool:
        key = await self._for_signature(request, "verify")
        return _asymmetric.verify(key, request)

    async def _encrypt(self, request: CipherRequest, operation: str) -> CipherResult:
        key = await self._for_cipher(request, operation)
        if isinstance(key.material, bytes):
            return _symmetric.encrypt(key.material, request)
        return CipherResult(_asymmetric.encrypt(key, request))

    async def _decrypt(self, request: CipherRequest, operation: str) -> bytes:
        key = await self._for_cipher(request, operation)
        if isinstance(key.material, bytes):
            return _symmetric.decrypt(key.material, request)
        # Private RSA takes milliseconds, and in them the node would do nothing else.
        return await trio.to_thread.run_sync(partial(_asymmetric.decrypt, key, request))

    async def _for_cipher(self, request: CipherRequest, operation: str) -> Key:
        key = await self._find(request.key_name)
        key.check(operation, request.algorithm)
        symmetric = isinstance(key.material, bytes)
        if request.algorithm not in (_symmetric.SYMMETRIC if symmetric else _asymmetric.ASYMMETRIC):
            raise InvalidArgument("unsupported algorithm")
        return key

    async def _for_signature(self, request: SignatureRequest, operation: str) -> Key:
        key = await self._find(request.key_name)
        key.check(operation, request.algorithm)
        if request.algorithm not in _asymmetric.SIGNING:
            raise InvalidArgument("unsupported algorithm")
        return key
