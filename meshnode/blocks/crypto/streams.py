"""EncryptAlpha1 and DecryptAlpha1: a document goes through in pieces, encrypted or decrypted on its way.

One task does everything: it takes a message, works, and sends before it takes the next, so that a caller who
does not read stops a caller who sends (flow control), and no more than a message and a segment is held.
Nothing leaves that has not been authenticated.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Any, final

import trio

from meshnode.blocks.call import Call
from meshnode.blocks.crypto.manifest import CIPHERS, NONCE_PREFIX, Manifest, SchemeError, wrapping_named
from meshnode.blocks.crypto.providers import (
    CryptoProviders,
    Provider,
    bad_request,
    nothing_sent,
    operation_failed,
)
from meshnode.blocks.crypto.scheme import FILE_KEY, DocumentKeys, Header, HeaderReader, header_of
from meshnode.blocks.crypto.segments import Segments
from meshnode.blocks.scoped import scoped
from meshnode.errors import CircuitOpen, ComponentUnavailable, MeshError
from meshnode.interfaces import CipherRequest
from meshnode.transport import Stream
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["CryptoStreams"]

_log = logging.getLogger("meshnode.crypto")


@final
class CryptoStreams:
    """Both directions, for all crypto components of a node."""

    def __init__(self, providers: CryptoProviders) -> None:
        self._providers = providers

    async def encrypt(
        self, stream: Stream[runtime.EncryptRequest, runtime.EncryptResponse], call: Call
    ) -> None:
        """Raises `InvalidArgument` for options that are not there; INTERNAL for the rest, as in Dapr."""
        first = await stream.recv_message()
        if first is None:
            raise nothing_sent()
        options = first.options
        if options is None:
            raise bad_request("first message does not contain the required options")
        if not options.key_name:
            raise bad_request("missing property 'keyName' in the options message")
        if not options.key_wrap_algorithm:
            raise bad_request("missing property 'keyWrapAlgorithm' in the options message")
        provider = self._providers.find(options.component_name)
        pieces = _Pieces(stream, runtime.EncryptResponse)
        try:
            header, segments = await _begun(provider, options, call)
            await pieces.send(header)
            await pieces.through(segments, _payloads(first, stream))
        except SchemeError as error:
            raise operation_failed(provider.name, str(error)) from error

    async def decrypt(
        self, stream: Stream[runtime.DecryptRequest, runtime.DecryptResponse], call: Call
    ) -> None:
        first = await stream.recv_message()
        if first is None:
            raise nothing_sent()
        options = first.options
        if options is None:
            raise bad_request("first message does not contain the required options")
        provider = self._providers.find(options.component_name)
        pieces = _Pieces(stream, runtime.DecryptResponse)
        payloads = _payloads(first, stream)
        try:
            header, rest = await _read_header(payloads)
            keys = await _opened(provider, header, options.key_name, call)
            manifest = header.manifest
            segments = Segments(manifest.cipher, keys.payload, manifest.nonce_prefix, decrypt=True)
            await pieces.sent(segments, rest)
            await pieces.through(segments, payloads)
        except SchemeError as error:
            raise operation_failed(provider.name, str(error)) from error


@final
class _Pieces:
    """Sends what comes out, numbered from 0."""

    def __init__(self, stream: Stream[Any, Any], response: type[Any]) -> None:
        self._stream = stream
        self._response = response
        self._number = 0

    async def send(self, data: bytes) -> None:
        payload = common.StreamPayload(data=data, seq=self._number)
        self._number += 1
        await self._stream.send_message(self._response(payload=payload))

    async def sent(self, segments: Segments, data: bytes) -> None:
        for segment in segments.feed(data):
            await self.send(segment)

    async def through(self, segments: Segments, payloads: _Payloads) -> None:
        """Everything there is still to come, and the end."""
        while (data := await payloads.receive()) is not None:
            await self.sent(segments, data)
            await trio.lowlevel.checkpoint()  # a fast sender must not keep the node to itself
        if last := segments.finish():
            await self.send(last)


@final
class _Payloads:
    """The pieces of the caller's document, in order."""

    def __init__(self, first: Any, stream: Stream[Any, Any]) -> None:
        self._first = first
        self._stream = stream
        self._expected = 0

    async def receive(self) -> bytes | None:
        """The next piece, None at the end. Raises `SchemeError` for pieces out of order."""
        while True:
            message, self._first = self._first, None
            if message is None:
                message = await self._stream.recv_message()
                if message is None:
                    return None
                if message.options is not None:
                    raise SchemeError("options found in non-leading message")
            payload = message.payload
            if payload is None:
                continue
            if payload.seq != self._expected:
                raise SchemeError(
                    f"invalid sequence number received: {payload.seq} (expected: {self._expected})"
                )
            self._expected += 1
            return bytes(payload.data)


def _payloads(first: Any, stream: Stream[Any, Any]) -> _Payloads:
    return _Payloads(first, stream)


async def _begun(
    provider: Provider, options: runtime.EncryptRequestOptions, call: Call
) -> tuple[bytes, Segments]:
    """A new document: its header and what encrypts its segments."""
    wrapping = wrapping_named(options.key_wrap_algorithm)
    cipher = options.data_encryption_cipher.upper() or "AES-GCM"
    if cipher not in CIPHERS:
        raise SchemeError(f"option Cipher is not valid: cipher {cipher} is not supported")
    # Keys come from the system, never from the node's own source of chance, which may be seeded.
    file_key, prefix = os.urandom(FILE_KEY), os.urandom(NONCE_PREFIX)
    wanted = CipherRequest(options.key_name, wrapping, file_key)
    try:
        wrapped = await scoped(provider.policy, partial(provider.driver.wrap_key, wanted, literal=True), call)
    except CircuitOpen:
        raise
    except MeshError as error:
        raise SchemeError(f"failed to wrap the file key: {error}") from error
    name = "" if options.omit_decryption_key_name else options.decryption_key_name or options.key_name
    keys = DocumentKeys.derive(file_key, prefix)
    header = header_of(Manifest(wrapping, wrapped.data, cipher, prefix, name), keys)
    return header, Segments(cipher, keys.payload, prefix, decrypt=False)


async def _read_header(payloads: _Payloads) -> tuple[Header, bytes]:
    reader = HeaderReader()
    while (data := await payloads.receive()) is not None:
        found = reader.feed(data)
        if found is not None:
            return found
    raise reader.finish()


async def _opened(provider: Provider, header: Header, name: str, call: Call) -> DocumentKeys:
    """The keys of a document whose header proves to be made with them."""
    manifest = header.manifest
    key_name = name or manifest.key_name
    if not key_name:
        raise SchemeError("document's manifest does not contain a key name, and no key name was provided")
    wanted = CipherRequest(key_name, manifest.wrapping, manifest.wrapped_key)
    try:
        file_key = await scoped(provider.policy, partial(provider.driver.unwrap_key, wanted), call)
    except CircuitOpen:
        raise
    except ComponentUnavailable as error:
        raise SchemeError(f"failed to unwrap the file key: {error}") from error
    except MeshError as error:
        # Whether the key is not there, does not fit or unwraps to something else looks the same from
        # outside. The key that stands in is a random one: a known one could be used to forge a document.
        _log.debug("component %s: failed to unwrap the file key: %s", provider.name, error)
        file_key = os.urandom(FILE_KEY)
    keys = DocumentKeys.derive(file_key, manifest.nonce_prefix)
    header.verify(keys)
    return keys
