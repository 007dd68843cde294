"""Cryptography with the Python SDK from PyPI, sync and aio, against a real node."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dapr.clients.grpc._crypto import DecryptOptions, EncryptOptions
from support.processes import Node, healthz, node

pytestmark = pytest.mark.filterwarnings("ignore:.*Alpha version:UserWarning")

DOCUMENT = hashlib.shake_128(b"document").digest(200_000)
ENCRYPTION = [("rsa.pem", "RSA", "aes-gcm"), ("aes", "A256KW", "chacha20-poly1305")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    home = tmp_path_factory.mktemp("sdk-crypto")
    keys = home / "keys"
    keys.mkdir()
    key = rsa.generate_private_key(65537, 2048)
    (keys / "rsa.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (keys / "aes").write_bytes(bytes(range(32)))
    resources = f"""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: vault}}
spec: {{type: crypto.dapr.localstorage, version: v1, metadata: [{{name: path, value: {keys}}}]}}
"""
    with node("crypto", home, resources=resources) as started:
        yield started


@pytest.fixture
def sdk(running: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    with healthz() as port:
        from dapr.conf import settings

        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", port)
        monkeypatch.setattr(settings, "DAPR_GRPC_PORT", running.port)
        yield running


@pytest.mark.parametrize(("key", "wrap", "cipher"), ENCRYPTION)
def test_sync(sdk: Node, key: str, wrap: str, cipher: str) -> None:
    from dapr.clients import DaprClient

    with DaprClient() as dapr:
        sealed = dapr.encrypt(DOCUMENT, EncryptOptions("vault", key, wrap, cipher)).read()
        assert sealed.startswith(b"dapr.io/enc/v1\n")
        assert dapr.decrypt(sealed, DecryptOptions("vault")).read() == DOCUMENT
        changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        with pytest.raises(grpc.RpcError) as caught:
            dapr.decrypt(changed, DecryptOptions("vault")).read()
        assert caught.value.code() is grpc.StatusCode.INTERNAL  # type: ignore[attr-defined]
        assert "failed to decrypt segment" in str(caught.value)


@pytest.mark.parametrize(("key", "wrap", "cipher"), ENCRYPTION)
def test_aio(sdk: Node, key: str, wrap: str, cipher: str) -> None:
    from dapr.aio.clients import DaprClient

    async def main() -> None:
        async with DaprClient() as dapr:
            encrypted = await dapr.encrypt(DOCUMENT, EncryptOptions("vault", key, wrap, cipher))
            sealed = await encrypted.read()
            decrypted = await dapr.decrypt(sealed, DecryptOptions("vault"))
            assert await decrypted.read() == DOCUMENT
            changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
            refused = await dapr.decrypt(changed, DecryptOptions("vault"))
            with pytest.raises(grpc.RpcError, match="failed to decrypt segment"):
                await refused.read()

    asyncio.run(main())
