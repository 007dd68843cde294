"""Documents of the library that a daprd encrypts with: a node reads them, and the library reads a node's."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dapr.proto import api_service_v1, api_v1
from support.crypto_documents import Kit, content, find_kit
from support.processes import node

pytestmark = pytest.mark.go_sdk

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: crypto.dapr.localstorage, version: v1, metadata: [{name: path, value: KEYS}]}
"""
SEGMENT = 64 << 10
SIZES = [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 1 << 20]
CIPHERS = ["AES-GCM", "CHACHA20-POLY1305"]
WRAPPING = [("rsa.pem", "RSA-OAEP-256"), ("aes", "A256KW")]
"""The algorithms; further keys are the same in other forms, or by other names."""
FORMS = [
    ("rsa-4096.pem", "RSA-OAEP-256"), ("rsa-pkcs1.pem", "RSA"), ("rsa.jwk", "RSA-OAEP-256"),
    ("aes-base64", "AES"), ("aes.jwk", "A256KW"),
]  # fmt: skip
REFUSALS = r"failed to decrypt segment|invalid header|validate the document's signature"
FIXTURES = Path(__file__).parent.parent / "unit" / "kit_documents.json"


@frozen
class Bench:
    """The library, and a node with the same keys."""

    kit: Kit
    stub: Any

    def encrypt(self, plain: bytes, key: str, algorithm: str, cipher: str, **options: Any) -> bytes:
        asked = api_v1.EncryptRequestOptions(
            component_name="vault",
            key_name=key,
            key_wrap_algorithm=algorithm,
            data_encryption_cipher=cipher.lower(),
            **options,
        )
        return self._through(self.stub.EncryptAlpha1, api_v1.EncryptRequest, asked, plain)

    def decrypt(self, sealed: bytes, key: str = "") -> bytes:
        asked = api_v1.DecryptRequestOptions(component_name="vault", key_name=key)
        return self._through(self.stub.DecryptAlpha1, api_v1.DecryptRequest, asked, sealed)

    def _through(self, method: Any, request: Any, options: Any, data: bytes) -> bytes:
        def messages() -> Iterator[Any]:
            pieces = [data[at : at + 10_000] for at in range(0, len(data), 10_000)] or [b""]
            for number, piece in enumerate(pieces):
                payload = {"payload": {"data": piece, "seq": number}}
                yield request(options=options, **payload) if number == 0 else request(**payload)

        return b"".join(answer.payload.data for answer in method(messages(), timeout=60))


def write_keys(folder: Path) -> None:
    folder.mkdir()
    pair, large = (rsa.generate_private_key(65537, size) for size in (2048, 4096))
    secret = bytes(range(32))

    def text(data: bytes | int) -> str:
        if isinstance(data, int):
            data = data.to_bytes((data.bit_length() + 7) // 8, "big")
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def pem(key: rsa.RSAPrivateKey, form: PrivateFormat) -> bytes:
        return key.private_bytes(Encoding.PEM, form, NoEncryption())

    numbers = pair.private_numbers()
    jwk = {
        "kty": "RSA", "n": numbers.public_numbers.n, "e": numbers.public_numbers.e, "d": numbers.d,
        "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp,
    }  # fmt: skip
    fields = {name: text(value) if isinstance(value, int) else value for name, value in jwk.items()}
    for name, data in {
        "rsa.pem": pem(pair, PrivateFormat.PKCS8),
        "rsa-pkcs1.pem": pem(pair, PrivateFormat.TraditionalOpenSSL),
        "rsa-4096.pem": pem(large, PrivateFormat.PKCS8),
        "rsa.jwk": json.dumps(fields).encode(),
        "aes": secret,
        "aes-base64": base64.b64encode(secret),
        "aes.jwk": json.dumps({"kty": "oct", "k": text(secret)}).encode(),
    }.items():
        (folder / name).write_bytes(data)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    home = tmp_path_factory.mktemp("kit")
    kit = find_kit(home / "keys")
    if kit is None:
        pytest.skip("the program with Dapr's library for cryptography is not built")
    write_keys(home / "keys")
    resources = RESOURCES.replace("KEYS", str(home / "keys"))
    with (
        node("crypto", home, resources=resources) as running,
        closing(grpc.insecure_channel(running.address)) as channel,
    ):
        yield Bench(kit, api_service_v1.DaprStub(channel))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize(("key", "algorithm"), WRAPPING)
def test_each_reads_the_others_documents(
    bench: Bench, key: str, algorithm: str, cipher: str, size: int
) -> None:
    plain = content(size)
    theirs = bench.kit.encrypt(plain, key, algorithm, cipher)
    assert bench.decrypt(theirs) == plain
    ours = bench.encrypt(plain, key, algorithm, cipher)
    assert bench.kit.decrypt(ours) == plain
    assert len(ours) == len(theirs)


@pytest.mark.parametrize(("key", "algorithm"), FORMS)
def test_keys_are_read_in_every_form(bench: Bench, key: str, algorithm: str) -> None:
    plain = content(1000)
    assert bench.decrypt(bench.kit.encrypt(plain, key, algorithm, "AES-GCM")) == plain
    assert bench.kit.decrypt(bench.encrypt(plain, key, algorithm, "AES-GCM")) == plain


def test_names_of_keys(bench: Bench) -> None:
    plain = content(1000)
    renamed = bench.kit.encrypt(plain, "aes", "A256KW", "AES-GCM", "aes-base64")
    assert b'"k":"aes-base64"' in renamed
    assert bench.decrypt(renamed) == plain
    nameless = bench.kit.encrypt(plain, "aes", "A256KW", "AES-GCM", "-")
    assert bench.decrypt(nameless, "aes") == plain
    with pytest.raises(grpc.RpcError, match="does not contain a key name"):
        bench.decrypt(nameless)
    renamed = bench.encrypt(plain, "aes", "A256KW", "AES-GCM", decryption_key_name="aes-base64")
    assert b'"k":"aes-base64"' in renamed
    assert bench.kit.decrypt(renamed) == plain
    nameless = bench.encrypt(plain, "aes", "A256KW", "AES-GCM", omit_decryption_key_name=True)
    assert bench.kit.decrypt(nameless, "aes") == plain
    with pytest.raises(ValueError, match="does not contain a key name"):
        bench.kit.decrypt(nameless)


@pytest.mark.parametrize("at", ["header", "first segment", "last segment", "end"])
def test_neither_reads_what_was_changed(bench: Bench, at: str) -> None:
    plain = content(SEGMENT + 100)
    place = {"header": 20, "first segment": 1000, "last segment": -50, "end": -1}[at]
    for sealed in (
        bench.kit.encrypt(plain, "aes", "A256KW", "AES-GCM"),
        bench.encrypt(plain, "aes", "A256KW", "AES-GCM"),
    ):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(ValueError, match=REFUSALS):
            bench.kit.decrypt(bytes(changed))
        with pytest.raises(grpc.RpcError, match=REFUSALS):
            bench.decrypt(bytes(changed))


def test_the_documents_of_the_unit_tests_are_the_program_s(bench: Bench) -> None:
    made, kept = json.loads(bench.kit.fixtures()), json.loads(FIXTURES.read_text())
    assert made["about"] == kept["about"]
    assert made["keys"].keys() == kept["keys"].keys()
    facts = ("key", "algorithm", "cipher", "size")
    assert [[one[fact] for fact in facts] for one in made["documents"]] == [
        [one[fact] for fact in facts] for one in kept["documents"]
    ]
    for one in made["documents"]:
        assert bench.decrypt(base64.b64decode(one["document"])) == content(one["size"])


@pytest.mark.parametrize("algorithm", ["A128CBC-NOPAD", "A192CBC-NOPAD", "A256CBC-NOPAD"])
def test_neither_wraps_a_key_without_authentication(bench: Bench, algorithm: str) -> None:
    """The scheme has numbers for these, and the library refuses them."""
    with pytest.raises(ValueError, match="unsupported algorithm"):
        bench.kit.encrypt(b"x", "aes", algorithm, "AES-GCM")
    with pytest.raises(grpc.RpcError):
        bench.encrypt(b"x", "aes", algorithm, "AES-GCM")
