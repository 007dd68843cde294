"""The cryptography block through real nodes, in the in-process mesh, with keys in files."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.rpc import error_details_pb2, status_pb2
from support.crypto_documents import content
from trio.testing import MockClock

from meshnode.blocks.crypto.manifest import Manifest
from meshnode.blocks.crypto.scheme import DocumentKeys, header_of
from meshnode.blocks.crypto.segments import SEGMENT, TAG
from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import CipherRequest, CipherResult, Driver, DriverContext
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import Cardinality, GRPCError, Status
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime

PATH = "/dapr.proto.runtime.v1.Dapr/"


def pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


RSA = pem(rsa.generate_private_key(65537, 2048))
OTHER = pem(rsa.generate_private_key(65537, 2048))
EC = pem(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
async def node(mesh: Mesh, tmp_path: Path, autojump_clock: MockClock) -> MeshNode:
    files = {"rsa.pem": RSA, "other.pem": OTHER, "ec.pem": EC, "aes": bytes(range(32)), "short": bytes(16)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return await mesh.start("app", resources=component(tmp_path))


def component(path: Path) -> str:
    return f"""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: vault}}
spec: {{type: crypto.dapr.localstorage, version: v1, metadata: [{{name: path, value: {path}}}]}}
"""


def cut(data: bytes, size: int = 2048) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


async def talk(node: MeshNode, method: str, messages: Sequence[Any]) -> bytes:
    """Sends all of them and reads all answers at once."""
    kind = method.removesuffix("Alpha1")
    request, reply = getattr(runtime, f"{kind}Request"), getattr(runtime, f"{kind}Response")
    stream_of = node.channel.request(PATH + method, Cardinality.STREAM_STREAM, request, reply)
    out: list[Any] = []
    async with stream_of as stream:
        await stream.send_request()

        async def send() -> None:
            for message in messages:
                await stream.send_message(message)
            await stream.end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for message in stream:
                assert message.payload.seq == len(out)
                out.append(message.payload.data)
    return b"".join(out)


async def encrypted(
    node: MeshNode, plain: bytes, *, key: str = "rsa.pem", wrap: str = "RSA", **more: Any
) -> bytes:
    options = runtime.EncryptRequestOptions(
        component_name="vault", key_name=key, key_wrap_algorithm=wrap, **more
    )
    payloads = [common.StreamPayload(data=one, seq=number) for number, one in enumerate(cut(plain))]
    messages = [runtime.EncryptRequest(options=options)]
    messages += [runtime.EncryptRequest(payload=one) for one in payloads]
    return await talk(node, "EncryptAlpha1", messages)


async def decrypted(node: MeshNode, data: bytes, key: str = "", size: int = 2048) -> bytes:
    options = runtime.DecryptRequestOptions(component_name="vault", key_name=key)
    payloads = [common.StreamPayload(data=one, seq=number) for number, one in enumerate(cut(data, size))]
    messages = [runtime.DecryptRequest(options=options)]
    messages += [runtime.DecryptRequest(payload=one) for one in payloads]
    return await talk(node, "DecryptAlpha1", messages)


async def refused(awaitable: Any) -> GRPCError:
    try:
        await awaitable
    except GRPCError as error:
        return error
    except ExceptionGroup as group:
        found = group.subgroup(GRPCError)
        assert found is not None
        error = found.exceptions[0]
        assert isinstance(error, GRPCError)
        return error
    pytest.fail("it was not refused")


def reason(error: GRPCError) -> str:
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(error.details or b"").details[0].Unpack(info)
    return str(info.reason)


async def test_documents_of_daprs_own_library(mesh: Mesh, tmp_path: Path) -> None:
    """What `tests/node/go_crypto` made once. (`tests/node/test_kit_crypto.py` asks the library itself.)"""
    kept = json.loads((Path(__file__).parent / "kit_documents.json").read_text())
    for name, key in kept["keys"].items():
        (tmp_path / name).write_bytes(base64.b64decode(key))
    node = await mesh.start("app", resources=component(tmp_path))
    assert len(kept["documents"]) == 13
    for one in kept["documents"]:
        sealed = base64.b64decode(one["document"])
        assert await decrypted(node, sealed) == content(one["size"])
        await refused(decrypted(node, sealed[:-1]))


@pytest.mark.parametrize("size", [0, 1, 2048, SEGMENT - 1, SEGMENT, SEGMENT + 1, 5 * SEGMENT + 3])
async def test_documents_come_back(node: MeshNode, size: int) -> None:
    plain = hashlib.shake_128(b"x").digest(size)
    sealed = await encrypted(node, plain)
    assert sealed.startswith(b'dapr.io/enc/v1\n{"k":"rsa.pem","kw":5,')
    assert await decrypted(node, sealed) == plain


async def test_every_cipher_and_wrapping(node: MeshNode) -> None:
    for key, wrap in {"rsa.pem": "rsa-oaep-256", "aes": "A256KW"}.items():
        for cipher in ("", "aes-gcm", "chacha20-poly1305"):
            sealed = await encrypted(node, b"hello", key=key, wrap=wrap, data_encryption_cipher=cipher)
            assert (b'"cph":2' in sealed) == cipher.startswith("chacha")
            assert await decrypted(node, sealed, size=7) == b"hello"


async def test_the_name_of_the_key(node: MeshNode) -> None:
    sealed = await encrypted(node, b"x", omit_decryption_key_name=True)
    assert b'"k"' not in sealed
    error = await refused(decrypted(node, sealed))
    assert "no key name was provided" in (error.message or "")
    assert await decrypted(node, sealed, key="rsa.pem") == b"x"
    sealed = await encrypted(node, b"x", decryption_key_name="elsewhere")
    assert b'"k":"elsewhere"' in sealed


async def test_damage_and_wrong_keys_say_the_same(node: MeshNode) -> None:
    sealed = await encrypted(node, b"x" * 100)
    signature = "failed to perform operation: failed to validate the document's signature"
    for error in (
        await refused(decrypted(node, sealed, key="other.pem")),
        await refused(decrypted(node, sealed, key="nobody")),
        await refused(decrypted(node, sealed, key="aes")),
        await refused(decrypted(node, sealed.replace(b'"cph":1', b'"cph":2'))),
    ):
        assert (error.status, error.message) == (Status.INTERNAL, signature)
    error = await refused(decrypted(node, sealed[:-1]))
    assert (error.status, error.message) == (
        Status.INTERNAL,
        "failed to perform operation: error processing segment 0: failed to decrypt segment",
    )
    for text, why in ((b"nonsense", "scheme name not found"), (b"non\nsense", "unsupported scheme")):
        error = await refused(decrypted(node, text))
        assert error.message == f"failed to perform operation: invalid header: {why}"


async def test_a_document_under_the_key_of_zeros_is_not_taken_for_one(node: MeshNode) -> None:
    """Where a reader goes on with zeros when a key does not unwrap, anyone can write for it."""
    keys = DocumentKeys.derive(bytes(32), b"prefix7")
    forged = header_of(Manifest("A256KW", b"junk", "AES-GCM", b"prefix7", "aes"), keys)
    assert "signature" in ((await refused(decrypted(node, forged))).message or "")


async def test_pieces_must_be_in_order(node: MeshNode) -> None:
    options = runtime.EncryptRequestOptions(
        component_name="vault", key_name="rsa.pem", key_wrap_algorithm="RSA"
    )
    first = runtime.EncryptRequest(options=options, payload=common.StreamPayload(data=b"a", seq=0))
    skipped = runtime.EncryptRequest(payload=common.StreamPayload(data=b"c", seq=2))
    error = await refused(talk(node, "EncryptAlpha1", [first, skipped]))
    assert "invalid sequence number received: 2 (expected: 1)" in (error.message or "")
    error = await refused(talk(node, "EncryptAlpha1", [first, first]))
    assert "options found in non-leading message" in (error.message or "")


async def test_what_options_must_say(node: MeshNode) -> None:
    def opening(**fields: Any) -> list[Any]:
        return [runtime.EncryptRequest(options=runtime.EncryptRequestOptions(**fields))]

    named = {"component_name": "vault", "key_name": "rsa.pem", "key_wrap_algorithm": "RSA"}
    for messages, words in (
        ([runtime.EncryptRequest()], "first message does not contain the required options"),
        (opening(**{**named, "key_name": ""}), "missing property 'keyName' in the options message"),
        (opening(**{**named, "key_wrap_algorithm": ""}), "missing property 'keyWrapAlgorithm'"),
        (opening(**{**named, "component_name": ""}), "missing component name"),
    ):
        error = await refused(talk(node, "EncryptAlpha1", messages))
        assert error.status is Status.INVALID_ARGUMENT
        assert f"invalid request: {words}" in (error.message or "")
    error = await refused(talk(node, "EncryptAlpha1", opening(**{**named, "component_name": "nobody"})))
    assert (error.status, error.message) == (Status.INVALID_ARGUMENT, "crypto provider nobody not found")
    error = await refused(talk(node, "EncryptAlpha1", []))
    assert error.status is Status.INTERNAL
    assert "error receiving the first message" in (error.message or "")
    for wrong in ({"key_wrap_algorithm": "A128KW"}, {"data_encryption_cipher": "rot13"}, {"key_name": "no"}):
        error = await refused(talk(node, "EncryptAlpha1", opening(**{**named, **wrong})))
        assert error.status is Status.INTERNAL


async def test_a_caller_who_does_not_read_is_not_read_from(node: MeshNode) -> None:
    options = runtime.EncryptRequestOptions(
        component_name="vault", key_name="rsa.pem", key_wrap_algorithm="RSA"
    )
    request = node.channel.request(
        PATH + "EncryptAlpha1", Cardinality.STREAM_STREAM, runtime.EncryptRequest, runtime.EncryptResponse
    )
    sent = 0
    async with request as stream:
        await stream.send_message(runtime.EncryptRequest(options=options))
        with trio.move_on_after(1):
            while True:
                payload = common.StreamPayload(data=bytes(SEGMENT), seq=sent)
                await stream.send_message(runtime.EncryptRequest(payload=payload))
                sent += 1
                assert sent < 2000  # 125 MB would have gone somewhere
        await stream.cancel()


async def test_subtle_operations(node: MeshNode) -> None:
    dapr, named = node.dapr, {"component_name": "vault"}
    nonce = bytes(12)
    sealed = await dapr.subtle_encrypt_alpha_1(
        runtime.SubtleEncryptRequest(
            **named, plaintext=b"hi", algorithm="A256GCM", key_name="aes", nonce=nonce, associated_data=b"a"
        )
    )
    assert len(sealed.tag) == TAG
    opening = {**named, "algorithm": "A256GCM", "key_name": "aes", "nonce": nonce, "associated_data": b"a"}
    opened = await dapr.subtle_decrypt_alpha_1(
        runtime.SubtleDecryptRequest(**opening, ciphertext=sealed.ciphertext, tag=sealed.tag)
    )
    assert opened.plaintext == b"hi"
    error = await refused(
        dapr.subtle_decrypt_alpha_1(
            runtime.SubtleDecryptRequest(**opening, ciphertext=sealed.ciphertext, tag=bytes(TAG))
        )
    )
    assert (error.status, error.message) == (
        Status.INTERNAL,
        "failed to perform operation: failed to decrypt",
    )
    wrapped = await dapr.subtle_wrap_key_alpha_1(
        runtime.SubtleWrapKeyRequest(
            **named, plaintext_key=bytes(16), algorithm="RSA-OAEP", key_name="rsa.pem"
        )
    )
    unwrapped = await dapr.subtle_unwrap_key_alpha_1(
        runtime.SubtleUnwrapKeyRequest(
            **named, wrapped_key=wrapped.wrapped_key, algorithm="RSA-OAEP", key_name="rsa.pem"
        )
    )
    assert unwrapped.plaintext_key == bytes(16)


async def test_subtle_signatures_and_keys(node: MeshNode) -> None:
    dapr, named = node.dapr, {"component_name": "vault"}
    digest = hashlib.sha256(b"message").digest()
    signing = {**named, "digest": digest, "algorithm": "ES256", "key_name": "ec.pem"}
    signature = (await dapr.subtle_sign_alpha_1(runtime.SubtleSignRequest(**signing))).signature
    verified = await dapr.subtle_verify_alpha_1(runtime.SubtleVerifyRequest(**signing, signature=signature))
    assert verified.valid is True
    wrong = runtime.SubtleVerifyRequest(**{**signing, "digest": bytes(32)}, signature=signature)
    assert (await dapr.subtle_verify_alpha_1(wrong)).valid is False
    formats = runtime.SubtleGetKeyRequestKeyFormat
    key = await dapr.subtle_get_key_alpha_1(runtime.SubtleGetKeyRequest(**named, name="ec.pem"))
    assert key.name == "ec.pem"
    assert key.public_key.startswith("-----BEGIN PUBLIC KEY-----\n")
    key = await dapr.subtle_get_key_alpha_1(
        runtime.SubtleGetKeyRequest(**named, name="ec.pem", format=formats.JSON)
    )
    assert key.public_key.startswith('{"kty":"EC","crv":"P-256","x":"')
    for name in ("aes", "nobody"):
        error = await refused(dapr.subtle_get_key_alpha_1(runtime.SubtleGetKeyRequest(**named, name=name)))
        assert error.status is Status.INTERNAL
        assert (error.message or "").startswith(f"failed to retrieve key {name}: ")


class Vault:
    """A provider that is away for the first `failures` calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    async def wrap_key(self, request: CipherRequest, *, literal: bool = False) -> CipherResult:
        self.calls += 1
        if self.calls <= self.failures:
            raise ComponentUnavailable("the vault is away")
        assert literal
        return CipherResult(request.data[::-1])

    async def unwrap_key(self, request: CipherRequest) -> bytes:
        return (await self.wrap_key(request, literal=True)).data


@frozen
class Options:
    pass


AWAY = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: crypto.test, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies:
    retries:
      three: {policy: constant, duration: 1s, maxRetries: 3}
    circuitBreakers:
      simple: {maxRequests: 1, timeout: 30s, trip: consecutiveFailures >= 4}
  targets:
    components:
      vault: {outbound: {retry: three, circuitBreaker: simple}}
"""


async def test_keys_are_wrapped_under_the_component_s_policy(autojump_clock: MockClock) -> None:
    vault = Vault(failures=2)

    @asynccontextmanager
    async def opened(options: Options, context: DriverContext) -> AsyncIterator[Vault]:
        yield vault

    registry = Registry.discover([Driver("crypto.test", Options, opened)])
    async with open_mesh(1, registry=registry) as mesh:
        node = await mesh.start("app", resources=AWAY)
        sealed = await encrypted(node, b"x", key="k")
        assert vault.calls == 3
        assert await decrypted(node, sealed) == b"x"
        vault.calls, vault.failures = 0, 100
        error = await refused(decrypted(node, sealed))
        assert (error.status, error.message) == (
            Status.INTERNAL,
            "failed to perform operation: failed to unwrap the file key: the vault is away",
        )
        error = await refused(decrypted(node, sealed))
        assert (error.status, error.message) == (Status.UNKNOWN, "circuit breaker is open")
        assert vault.calls == 4


async def test_without_a_component_the_answer_is_internal(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app")
    error = await refused(node.dapr.subtle_get_key_alpha_1(runtime.SubtleGetKeyRequest(component_name="x")))
    assert (error.status, error.message) == (Status.INTERNAL, "crypto providers not configured")
    assert reason(error) == "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED"
