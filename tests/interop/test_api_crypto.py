"""Cryptography at a daprd and at a meshnode, request by request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dapr.proto.common.v1.common_pb2 import StreamPayload
from dapr.proto.runtime.v1 import crypto_pb2 as pb
from support.install_daprd import daprd_has, find_daprd
from support.sidecars import Allowed, Case, Pair, compare, sidecars

pytestmark = pytest.mark.skipif(find_daprd() is None, reason="daprd is not installed")

BUILT_IN = pytest.mark.skipif(
    not daprd_has(b"_SubtleCrypto"), reason="daprd with the Subtle methods is not installed"
)
RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: crypto.dapr.localstorage, version: v1, metadata: [{name: path, value: "HOME/keys"}]}
"""
NO_PROVIDER = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: state}
spec: {type: state.in-memory, version: v1, metadata: []}
"""


def encryption(
    vault: str = "vault", key: str = "aes", wrap: str = "A256KW", cipher: str = "", **more: object
) -> pb.EncryptRequestOptions:
    return pb.EncryptRequestOptions(
        component_name=vault, key_name=key, key_wrap_algorithm=wrap, data_encryption_cipher=cipher, **more
    )


def encrypt(*parts: tuple[pb.EncryptRequestOptions | None, bytes, int]) -> list[pb.EncryptRequest]:
    return [
        pb.EncryptRequest(options=options, payload=StreamPayload(data=data, seq=seq))
        for options, data, seq in parts
    ]


def decrypt(*parts: tuple[pb.DecryptRequestOptions | None, bytes, int]) -> list[pb.DecryptRequest]:
    return [
        pb.DecryptRequest(options=options, payload=StreamPayload(data=data, seq=seq))
        for options, data, seq in parts
    ]


def opening(vault: str = "vault", key: str = "") -> pb.DecryptRequestOptions:
    return pb.DecryptRequestOptions(component_name=vault, key_name=key)


FORGED = b'dapr.io/enc/v1\n{"k":"aes","kw":5,"wfk":"AAAA","cph":1,"np":"AAAAAAAAAA=="}\nAAAA\n'
DOCUMENTS = [
    *[
        Case(f"encrypt, {name}", "EncryptAlpha1", encrypt((options, b"text", 0)))
        for name, options in {
            "no options": None,
            "no component": encryption(""),
            "unknown component": encryption("unknown"),
            "no key": encryption(key=""),
            "unknown key": encryption(key="nothing"),
            "no algorithm": encryption(wrap=""),
            "unknown algorithm": encryption(wrap="ROT13"),
            "algorithm of another key": encryption(wrap="RSA"),
            "unknown cipher": encryption(cipher="rot13"),
        }.items()
    ],
    Case(
        "encrypt, options twice", "EncryptAlpha1", encrypt((encryption(), b"a", 0), (encryption(), b"b", 1))
    ),
    Case("encrypt, wrong sequence", "EncryptAlpha1", encrypt((encryption(), b"a", 0), (None, b"b", 7))),
    Case("encrypt, nothing sent", "EncryptAlpha1", []),
    *[
        Case(f"decrypt, {name}", "DecryptAlpha1", decrypt((options, data, 0)))
        for name, options, data in (
            ("no options", None, b"text"),
            ("no component", opening(""), b"text"),
            ("unknown component", opening("unknown"), b"text"),
            ("no document", opening(), b"text"),
            ("nothing", opening(), b""),
            ("no manifest", opening(), b"dapr.io/enc/v1\n"),
            ("bad manifest", opening(), b"dapr.io/enc/v1\n{}\nAAAA\n"),
            (
                "bad MAC",
                opening(),
                FORGED,
            ),
        )
    ],
    Case("decrypt, nothing sent", "DecryptAlpha1", []),
]
OUTSIDE = Allowed(
    "a name that leads out of the folder is refused as what it is",
    {"message": "failed to retrieve key : invalid key path: cannot be empty or contain '..'"},
)
NO_FILE = Allowed(
    "the path of the keys is not the caller's to know",
    {"message": "failed to retrieve key nothing: failed to load key 'nothing': key not found"},
)
SUBTLE = [
    case
    for name, vault, key, algorithm in (
        ("no component", "", "aes", "A256GCM"),
        ("unknown component", "unknown", "aes", "A256GCM"),
        ("no key", "vault", "", "A256GCM"),
        ("unknown key", "vault", "nothing", "A256GCM"),
        ("unknown algorithm", "vault", "aes", "ROT13"),
        ("no algorithm", "vault", "aes", ""),
    )
    for case in (
        Case(
            f"get key, {name}",
            "SubtleGetKeyAlpha1",
            pb.SubtleGetKeyRequest(component_name=vault, name=key),
            {"no key": OUTSIDE, "unknown key": NO_FILE}.get(name),
        ),
        Case(
            f"subtle encrypt, {name}",
            "SubtleEncryptAlpha1",
            pb.SubtleEncryptRequest(
                component_name=vault, key_name=key, algorithm=algorithm, plaintext=b"p", nonce=bytes(12)
            ),
        ),
        Case(
            f"subtle decrypt, {name}",
            "SubtleDecryptAlpha1",
            pb.SubtleDecryptRequest(
                component_name=vault,
                key_name=key,
                algorithm=algorithm,
                ciphertext=b"c",
                nonce=bytes(12),
                tag=bytes(16),
            ),
        ),
        Case(
            f"wrap, {name}",
            "SubtleWrapKeyAlpha1",
            pb.SubtleWrapKeyRequest(
                component_name=vault, key_name=key, algorithm=algorithm, plaintext_key=bytes(32)
            ),
        ),
        Case(
            f"unwrap, {name}",
            "SubtleUnwrapKeyAlpha1",
            pb.SubtleUnwrapKeyRequest(
                component_name=vault, key_name=key, algorithm=algorithm, wrapped_key=bytes(40)
            ),
        ),
        Case(
            f"sign, {name}",
            "SubtleSignAlpha1",
            pb.SubtleSignRequest(component_name=vault, key_name=key, algorithm=algorithm, digest=bytes(32)),
        ),
        Case(
            f"verify, {name}",
            "SubtleVerifyAlpha1",
            pb.SubtleVerifyRequest(
                component_name=vault, key_name=key, algorithm=algorithm, digest=bytes(32), signature=bytes(32)
            ),
        ),
    )
]
WORKING = [
    Case(
        "public key as PEM",
        "SubtleGetKeyAlpha1",
        pb.SubtleGetKeyRequest(component_name="vault", name="rsa.pem"),
    ),
    Case(
        "public key of an unknown format",
        "SubtleGetKeyAlpha1",
        pb.SubtleGetKeyRequest(component_name="vault", name="rsa.pem", format=9),
    ),  # type: ignore[arg-type]
    Case(
        "subtle encrypt",
        "SubtleEncryptAlpha1",
        pb.SubtleEncryptRequest(
            component_name="vault",
            key_name="aes",
            algorithm="A256GCM",
            plaintext=b"p",
            nonce=bytes(12),
            associated_data=b"a",
        ),
    ),
    Case(
        "subtle encrypt, no nonce",
        "SubtleEncryptAlpha1",
        pb.SubtleEncryptRequest(component_name="vault", key_name="aes", algorithm="A256GCM", plaintext=b"p"),
    ),
    Case(
        "subtle decrypt, wrong tag",
        "SubtleDecryptAlpha1",
        pb.SubtleDecryptRequest(
            component_name="vault",
            key_name="aes",
            algorithm="A256GCM",
            ciphertext=b"c",
            nonce=bytes(12),
            tag=bytes(16),
        ),
    ),
    Case(
        "wrap",
        "SubtleWrapKeyAlpha1",
        pb.SubtleWrapKeyRequest(
            component_name="vault", key_name="aes", algorithm="A256KW", plaintext_key=bytes(32)
        ),
    ),
    Case(
        "unwrap, wrong",
        "SubtleUnwrapKeyAlpha1",
        pb.SubtleUnwrapKeyRequest(
            component_name="vault", key_name="aes", algorithm="A256KW", wrapped_key=bytes(40)
        ),
    ),
    Case(
        "sign",
        "SubtleSignAlpha1",
        pb.SubtleSignRequest(component_name="vault", key_name="rsa.pem", algorithm="RS256", digest=bytes(32)),
    ),
    Case(
        "sign, digest too short",
        "SubtleSignAlpha1",
        pb.SubtleSignRequest(component_name="vault", key_name="rsa.pem", algorithm="RS256", digest=b"x"),
    ),
    Case(
        "verify, wrong",
        "SubtleVerifyAlpha1",
        pb.SubtleVerifyRequest(
            component_name="vault",
            key_name="rsa.pem",
            algorithm="RS256",
            digest=bytes(32),
            signature=bytes(256),
        ),
    ),
]
NONE = [
    Case("encrypt", "EncryptAlpha1", encrypt((encryption(), b"text", 0))),
    Case("encrypt, no component named", "EncryptAlpha1", encrypt((encryption(""), b"text", 0))),
    Case("decrypt", "DecryptAlpha1", decrypt((opening(), b"text", 0))),
]
SUBTLE_NONE = Case("sign", "SubtleSignAlpha1", pb.SubtleSignRequest(component_name="vault"))


def prepared(home: Path) -> str:
    keys = home / "keys"
    keys.mkdir()
    key = rsa.generate_private_key(65537, 2048)
    (keys / "rsa.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (keys / "aes").write_bytes(bytes(range(32)))
    return RESOURCES.replace("HOME", str(home))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("interop-crypto")
    with sidecars(home, prepared(home)) as pair:
        yield pair


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with sidecars(tmp_path_factory.mktemp("interop-bare"), NO_PROVIDER) as pair:
        yield pair


@pytest.mark.parametrize("case", DOCUMENTS, ids=str)
def test_documents(full: Pair, case: Case) -> None:
    compare(full, case)


@BUILT_IN
@pytest.mark.parametrize("case", [*SUBTLE, *WORKING], ids=str)
def test_subtle(full: Pair, case: Case) -> None:
    compare(full, case)


@pytest.mark.parametrize("case", NONE, ids=str)
def test_no_component(bare: Pair, case: Case) -> None:
    compare(bare, case)


@BUILT_IN
def test_subtle_without_a_component(bare: Pair) -> None:
    compare(bare, SUBTLE_NONE)
