"""Cryptography components whose keys the node has: published test vectors, round trips of every algorithm,
and where keys come from.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_public_key,
)
from hypothesis import given
from hypothesis import strategies as st
from meshnode_crypto_dapr import JwksOptions, LocalStorageOptions, jwks_driver, localstorage_driver
from meshnode_crypto_dapr._jwk import jwk_of, parse_key

from meshnode.errors import ComponentError, ComponentUnavailable, InvalidArgument
from meshnode.interfaces import CipherRequest, CryptoProvider, DriverContext, SignatureRequest
from meshnode.testing.conformance import crypto

RSA = rsa.generate_private_key(65537, 2048)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
EC = {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}
ED = ed25519.Ed25519PrivateKey.generate()
KEY_BYTES = {"128": 16, "192": 24, "256": 32}


def pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def local(path: Path) -> AbstractAsyncContextManager[CryptoProvider]:
    return localstorage_driver.open(LocalStorageOptions(path=str(path)), DriverContext("vault", "app"))


def jwks(text: str, **options: Any) -> AbstractAsyncContextManager[CryptoProvider]:
    return jwks_driver.open(JwksOptions(jwks=text, **options), DriverContext("vault", "app"))


@asynccontextmanager
async def keys(path: Path, **files: bytes) -> AsyncIterator[CryptoProvider]:
    for name, data in files.items():
        (path / name).write_bytes(data)
    async with local(path) as provider:
        yield provider


# --- the contract


@pytest.mark.parametrize("check", crypto.CHECKS, ids=str)
async def test_conformance_of_keys_in_files(check: crypto.CryptoCheck, tmp_path: Path) -> None:
    (tmp_path / "aes").write_bytes(bytes(range(32)))
    (tmp_path / "rsa.pem").write_bytes(pem(RSA))
    assert await check.run(crypto.Setup(lambda: local(tmp_path), symmetric="aes", pair="rsa.pem"))


@pytest.mark.parametrize("check", crypto.CHECKS, ids=str)
async def test_conformance_of_keys_in_a_set(check: crypto.CryptoCheck) -> None:
    assert await check.run(crypto.Setup(lambda: jwks(TEXT), symmetric="aes", pair="pair"))


# --- published vectors


async def test_aes_key_wrap_of_rfc_3394(tmp_path: Path) -> None:
    """Section 4.6."""
    plain = bytes.fromhex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
    wrapped = bytes.fromhex(
        "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"
    )
    async with keys(tmp_path, kek=bytes(range(32))) as provider:
        made = await provider.wrap_key(CipherRequest("kek", "A256KW", plain), literal=True)
        assert (made.data, made.tag) == (wrapped, b"")
        assert await provider.unwrap_key(CipherRequest("kek", "A256KW", wrapped)) == plain


async def test_xchacha20_poly1305_of_the_draft(tmp_path: Path) -> None:
    """draft-irtf-cfrg-xchacha-03, A.3.1."""
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    key, nonce = bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58))
    associated = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    async with keys(tmp_path, key=key) as provider:
        made = await provider.encrypt(CipherRequest("key", "XC20P", plain, nonce, associated_data=associated))
    assert made.tag == bytes.fromhex("c0875924c1c7987947deafd8780acf49")
    assert made.data.startswith(bytes.fromhex("bd6d179d3e83d43b9576579493c0e939"))


async def test_aes_cbc_hmac_of_rfc_7518(tmp_path: Path) -> None:
    """Appendix B.1."""
    plain = (
        b"A cipher system must not be required to be secret, and it must be able to fall into the hands of "
        b"the enemy without inconvenience"
    )
    nonce = bytes.fromhex("1af38c2dc2b96ffdd86694092341bc04")
    request = CipherRequest(
        "key", "A128CBC-HS256", plain, nonce, associated_data=b"The second principle of Auguste Kerckhoffs"
    )
    async with keys(tmp_path, key=bytes(range(32))) as provider:
        made = await provider.encrypt(request)
        assert made.tag == bytes.fromhex("652c3fa36b0a7c5b3219fab3a30bc1c4")
        assert made.data.startswith(bytes.fromhex("c80edfa32ddf39d5ef00c0b468834279"))


# --- every algorithm


def symmetric() -> Mapping[str, int]:
    """Algorithm -> bytes of its key."""
    found = {f"A{bits}{mode}": size for bits, size in KEY_BYTES.items() for mode in ("CBC", "GCM", "KW")}
    found |= {f"A{bits}CBC-NOPAD": size for bits, size in KEY_BYTES.items()}
    found |= {"A128CBC-HS256": 32, "A192CBC-HS384": 48, "A256CBC-HS512": 64}
    return {**found, "C20P": 32, "C20PKW": 32, "XC20P": 32, "XC20PKW": 32}


def nonce_for(algorithm: str) -> bytes:
    if algorithm.startswith("X"):
        return os.urandom(24)
    return os.urandom(12 if algorithm.startswith("C20") or algorithm.endswith("GCM") else 16)


@pytest.mark.parametrize("algorithm", symmetric())
async def test_symmetric(algorithm: str, tmp_path: Path) -> None:
    size = symmetric()[algorithm]
    plain, nonce = os.urandom(32), nonce_for(algorithm)
    async with keys(tmp_path, key=os.urandom(size), other=os.urandom(size), short=os.urandom(15)) as provider:
        made = await provider.encrypt(CipherRequest("key", algorithm, plain, nonce))
        back = CipherRequest("key", algorithm, made.data, nonce, made.tag)
        assert await provider.decrypt(back) == plain
        with pytest.raises(InvalidArgument):
            await provider.encrypt(CipherRequest("short", algorithm, plain, nonce))
        if made.tag or algorithm.endswith("KW"):
            changed = bytes([made.data[0] ^ 1]) + made.data[1:]
            for wrong in (
                CipherRequest("key", algorithm, changed, nonce, made.tag),
                CipherRequest("other", algorithm, made.data, nonce, made.tag),
            ):
                with pytest.raises(InvalidArgument):
                    await provider.decrypt(wrong)
        if not algorithm.endswith(("128KW", "192KW", "256KW")):
            with pytest.raises(InvalidArgument, match="nonce"):
                await provider.encrypt(CipherRequest("key", algorithm, plain, b"short"))


@pytest.mark.parametrize("algorithm", ["RSA1_5", "RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512"])
async def test_rsa(algorithm: str, tmp_path: Path) -> None:
    async with keys(tmp_path, key=pem(RSA), public=public_pem(RSA)) as provider:
        made = await provider.encrypt(CipherRequest("public", algorithm, b"plain"))
        assert await provider.decrypt(CipherRequest("key", algorithm, made.data)) == b"plain"
        with pytest.raises(InvalidArgument):
            await provider.decrypt(CipherRequest("public", algorithm, made.data))
        with pytest.raises(InvalidArgument):
            await provider.encrypt(CipherRequest("key", algorithm, bytes(400)))
        changed = made.data[:-1] + bytes([made.data[-1] ^ 1])
        if algorithm != "RSA1_5":  # which answers with noise instead
            with pytest.raises(InvalidArgument):
                await provider.decrypt(CipherRequest("key", algorithm, changed))


SIGNING = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


@pytest.mark.parametrize("algorithm", SIGNING)
async def test_signatures(algorithm: str, tmp_path: Path) -> None:
    key: Any = ED if algorithm == "EdDSA" else EC.get(algorithm, RSA)
    hashed = f"sha{algorithm[2:]}" if algorithm != "EdDSA" else "sha256"
    digest, other = (hashlib.new(hashed, text).digest() for text in (b"message", b"another"))
    async with keys(tmp_path, key=pem(key), public=public_pem(key), oct=bytes(32)) as provider:
        signature = await provider.sign(SignatureRequest("key", algorithm, digest))
        for name in ("key", "public"):
            assert await provider.verify(SignatureRequest(name, algorithm, digest, signature)) is True
            assert await provider.verify(SignatureRequest(name, algorithm, other, signature)) is False
        assert await provider.verify(SignatureRequest("key", algorithm, digest, b"junk")) is False
        for name in ("public", "oct"):
            with pytest.raises(InvalidArgument):
                await provider.sign(SignatureRequest(name, algorithm, digest))
        if algorithm != "EdDSA":
            with pytest.raises(InvalidArgument):
                await provider.sign(SignatureRequest("key", algorithm, b"no digest"))


async def test_algorithms_that_are_none(tmp_path: Path) -> None:
    async with keys(tmp_path, key=bytes(32), pair=pem(RSA)) as provider:
        for name in ("", "A", "a256gcm", "A256GCMKW", "RSA-OAEP-256", "HS256"):
            with pytest.raises(InvalidArgument, match="unsupported algorithm"):
                await provider.encrypt(CipherRequest("key", name, b"x", bytes(12)))
            with pytest.raises(InvalidArgument, match="unsupported algorithm"):
                await provider.sign(SignatureRequest("pair", name, bytes(32)))


async def test_keys_of_any_kind_are_wrapped(tmp_path: Path) -> None:
    async with keys(tmp_path, kek=bytes(32)) as provider:
        nonce = bytes(12)
        for given_as, expected in (
            (base64.b64encode(bytes(range(16))), bytes(range(16))),
            (base64.b64encode(bytes(range(16))) + b"\n", bytes(range(16))),
            (base64.urlsafe_b64encode(b"\xff" * 16).rstrip(b"="), b"\xff" * 16),
            (b"\x00\xff" * 8, b"\x00\xff" * 8),
            (json.dumps({"kty": "oct", "k": "AAEC"}).encode(), b"\0\1\2"),
        ):
            made = await provider.wrap_key(CipherRequest("kek", "C20PKW", given_as, nonce))
            back = await provider.unwrap_key(CipherRequest("kek", "C20PKW", made.data, nonce, made.tag))
            assert back == expected
        made = await provider.wrap_key(CipherRequest("kek", "C20PKW", pem(EC["ES256"]), nonce))
        der = await provider.unwrap_key(CipherRequest("kek", "C20PKW", made.data, nonce, made.tag))
        assert load_der_private_key(der, None).private_numbers() == EC["ES256"].private_numbers()  # type: ignore[union-attr]


# --- keys in files


async def test_names_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(32))
    inside = tmp_path / "keys"
    (inside / "below").mkdir(parents=True)
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "below" / "key").write_bytes(bytes(32))
    async with local(inside) as provider:
        await provider.encrypt(CipherRequest("below/key", "A256GCM", b"x", bytes(12)))
        for name in ("../secret", "link", "below", "", "a\0b", str(tmp_path / "secret"), "below/key/x"):
            with pytest.raises(InvalidArgument):
                await provider.encrypt(CipherRequest(name, "A256GCM", b"x", bytes(12)))
    with pytest.raises(ComponentError):
        async with local(tmp_path / "nowhere"):
            pass


async def test_a_key_is_replaced_while_the_node_runs(tmp_path: Path) -> None:
    async with keys(tmp_path, key=bytes(32)) as provider:
        request = CipherRequest("key", "A256GCM", b"x", bytes(12))
        before = await provider.encrypt(request)
        (tmp_path / "key").write_bytes(bytes(range(32)))
        assert await provider.encrypt(request) != before


async def test_public_keys(tmp_path: Path) -> None:
    for number, key in enumerate((RSA, ED, *EC.values())):
        async with keys(tmp_path, **{f"key{number}": pem(key)}) as provider:
            found = await provider.get_key(f"key{number}")
        assert load_pem_public_key(found.pem.encode()) == key.public_key()
        assert parse_key(found.jwk.encode(), "json").public == key.public_key()


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["", "json", "pem"]))
def test_any_bytes_are_a_key_or_refused(data: bytes, kind: str) -> None:
    try:
        parse_key(data, kind)
    except InvalidArgument:
        pass


# --- key sets


def private_jwk() -> dict[str, str]:
    numbers = RSA.private_numbers()

    def text(number: int) -> str:
        raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    public = json.loads(jwk_of(RSA.public_key(), "pair"))
    return {**public, "d": text(numbers.d), "p": text(numbers.p), "q": text(numbers.q)}


SET: dict[str, Any] = {
    "keys": [
        {"kty": "oct", "kid": "aes", "k": base64.urlsafe_b64encode(bytes(32)).decode()},
        {"kty": "oct", "kid": "limited", "alg": "A256GCM", "key_ops": ["encrypt"], "k": "A" * 43},
        {"kty": "oct", "kid": "signer", "use": "sig", "k": "A" * 43},
        private_jwk(),
        {key: value for key, value in private_jwk().items() if key not in "pq"} | {"kid": "bare"},
        {"kty": "new", "kid": "unknown"},
    ]
}
TEXT = json.dumps(SET)


@pytest.mark.parametrize("encode", [str, lambda text: base64.b64encode(text.encode()).decode()])
async def test_a_set_in_the_component(encode: Callable[[str], str]) -> None:
    async with jwks(encode(TEXT)) as provider:
        made = await provider.wrap_key(CipherRequest("pair", "RSA-OAEP-256", bytes(32)), literal=True)
        for kid in ("pair", "bare"):
            assert await provider.unwrap_key(CipherRequest(kid, "RSA-OAEP-256", made.data)) == bytes(32)
        assert '"kid":"pair"' in (await provider.get_key("pair")).jwk
        for kid in ("unknown", "nobody", "aes"):
            with pytest.raises(InvalidArgument, match="key not found"):
                await provider.get_key(kid)


async def test_what_a_key_is_for() -> None:
    async with jwks(TEXT) as provider:
        await provider.encrypt(CipherRequest("limited", "A256GCM", b"x", bytes(12)))
        for operation, request in (
            (provider.decrypt, CipherRequest("limited", "A256GCM", b"x", bytes(12), bytes(16))),
            (provider.encrypt, CipherRequest("limited", "C20P", b"x", bytes(12))),
            (provider.encrypt, CipherRequest("signer", "A256GCM", b"x", bytes(12))),
        ):
            with pytest.raises(InvalidArgument, match="key cannot"):
                await operation(request)


async def test_a_set_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "set.json"
    file.write_text(TEXT)
    async with jwks(str(file)) as provider:
        assert await provider.get_key("pair")
        file.write_text("broken")
        assert await provider.get_key("pair")
        file.write_text('{"keys": []}')
        with pytest.raises(InvalidArgument):
            await provider.get_key("pair")
    for wrong in ("{}", str(tmp_path / "nothing"), '{"keys": 1}'):
        with pytest.raises(ComponentError):
            async with jwks(wrong):
                pass


@pytest.fixture
async def address(nursery: trio.Nursery) -> tuple[str, list[bytes]]:
    """Where each request is answered with the last of the bodies."""
    bodies = [TEXT.encode()]

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            body = bodies[-1]
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            await stream.send_all(head.encode() + body)

    listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
    return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/jwks", bodies


async def test_a_set_at_an_address(address: tuple[str, list[bytes]]) -> None:
    url, bodies = address
    async with jwks(url, min_refresh_interval=timedelta(seconds=1)) as provider:
        assert await provider.get_key("pair")
        bodies.append(b'{"keys": []}')
        with trio.fail_after(20):
            while True:
                try:
                    await provider.get_key("pair")
                except InvalidArgument:
                    break
                await trio.sleep(0.05)  # no event tells of a refresh
    bodies.append(b"nonsense")
    with pytest.raises(ComponentError):
        async with jwks(url):
            pass
    with pytest.raises(ComponentUnavailable):
        async with jwks("http://127.0.0.1:1/"):
            pass
