"""The Subtle* methods: one operation on one value, under the component's outbound policy.

What went wrong stays in the debug log: an answer that says more than "failed to decrypt" is an oracle for
whoever may send ciphertexts.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, final

from meshnode.blocks.call import Call
from meshnode.blocks.crypto.providers import CryptoProviders, Provider, bad_request, operation_failed
from meshnode.blocks.scoped import scoped
from meshnode.errors import CircuitOpen, ErrorInfoDetail, MeshError, ResourceInfoDetail, Status
from meshnode.interfaces import CipherRequest, SignatureRequest
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["SubtleCrypto"]

T = TypeVar("T")

_log = logging.getLogger("meshnode.crypto")
_FORMATS = runtime.SubtleGetKeyRequestKeyFormat


@final
class SubtleCrypto:
    """Each method takes and returns wire messages."""

    def __init__(self, providers: CryptoProviders) -> None:
        self._providers = providers

    async def get_key(self, request: runtime.SubtleGetKeyRequest, call: Call) -> runtime.SubtleGetKeyResponse:
        provider = self._providers.find(request.component_name)
        if request.format not in (_FORMATS.PEM, _FORMATS.JSON):
            raise bad_request("invalid key format")
        try:
            key = await scoped(provider.policy, partial(provider.driver.get_key, request.name), call)
        except CircuitOpen:
            raise
        except MeshError as error:
            raise MeshError(
                f"failed to retrieve key {request.name}: {error}",
                ErrorInfoDetail("ERR_CRYPTO_KEY"),
                ResourceInfoDetail("crypto", provider.name),
                status=Status.INTERNAL,
            ) from error
        text = key.pem if request.format == _FORMATS.PEM else key.jwk
        return runtime.SubtleGetKeyResponse(name=key.name, public_key=text)

    async def encrypt(
        self, request: runtime.SubtleEncryptRequest, call: Call
    ) -> runtime.SubtleEncryptResponse:
        provider = self._providers.find(request.component_name)
        wanted = CipherRequest(
            request.key_name,
            request.algorithm,
            request.plaintext,
            nonce=request.nonce,
            associated_data=request.associated_data,
        )
        made = await _run(provider, partial(provider.driver.encrypt, wanted), call, "failed to encrypt")
        return runtime.SubtleEncryptResponse(ciphertext=made.data, tag=made.tag)

    async def decrypt(
        self, request: runtime.SubtleDecryptRequest, call: Call
    ) -> runtime.SubtleDecryptResponse:
        provider = self._providers.find(request.component_name)
        wanted = CipherRequest(
            request.key_name,
            request.algorithm,
            request.ciphertext,
            request.nonce,
            request.tag,
            request.associated_data,
        )
        plain = await _run(provider, partial(provider.driver.decrypt, wanted), call, "failed to decrypt")
        return runtime.SubtleDecryptResponse(plaintext=plain)

    async def wrap_key(
        self, request: runtime.SubtleWrapKeyRequest, call: Call
    ) -> runtime.SubtleWrapKeyResponse:
        provider = self._providers.find(request.component_name)
        wanted = CipherRequest(
            request.key_name,
            request.algorithm,
            request.plaintext_key,
            nonce=request.nonce,
            associated_data=request.associated_data,
        )
        made = await _run(provider, partial(provider.driver.wrap_key, wanted), call, "failed to wrap key")
        return runtime.SubtleWrapKeyResponse(wrapped_key=made.data, tag=made.tag)

    async def unwrap_key(
        self, request: runtime.SubtleUnwrapKeyRequest, call: Call
    ) -> runtime.SubtleUnwrapKeyResponse:
        provider = self._providers.find(request.component_name)
        wanted = CipherRequest(
            request.key_name,
            request.algorithm,
            request.wrapped_key,
            request.nonce,
            request.tag,
            request.associated_data,
        )
        key = await _run(provider, partial(provider.driver.unwrap_key, wanted), call, "failed to unwrap key")
        return runtime.SubtleUnwrapKeyResponse(plaintext_key=key)

    async def sign(self, request: runtime.SubtleSignRequest, call: Call) -> runtime.SubtleSignResponse:
        provider = self._providers.find(request.component_name)
        wanted = SignatureRequest(request.key_name, request.algorithm, request.digest)
        signature = await _run(provider, partial(provider.driver.sign, wanted), call, "failed to sign")
        return runtime.SubtleSignResponse(signature=signature)

    async def verify(self, request: runtime.SubtleVerifyRequest, call: Call) -> runtime.SubtleVerifyResponse:
        provider = self._providers.find(request.component_name)
        wanted = SignatureRequest(request.key_name, request.algorithm, request.digest, request.signature)
        operation = partial(provider.driver.verify, wanted)
        valid = await _run(provider, operation, call, "failed to verify signature")
        return runtime.SubtleVerifyResponse(valid=valid)


async def _run(provider: Provider, operation: Callable[[], Awaitable[T]], call: Call, failure: str) -> T:
    try:
        return await scoped(provider.policy, operation, call)
    except CircuitOpen:
        raise
    except MeshError as error:
        _log.debug("component %s: %s: %s", provider.name, failure, error)
        raise operation_failed(provider.name, failure) from error
