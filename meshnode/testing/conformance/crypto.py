"""The conformance suite of cryptography providers.

    import pytest
    from meshnode.testing.conformance import crypto

    @pytest.mark.parametrize("check", crypto.CHECKS, ids=str)
    async def test_crypto(check, open_provider):
        await check.run(crypto.Setup(open_provider, symmetric="aes", pair="rsa"))

`open` takes nothing and returns an async context manager that yields the provider. `run` returns False where
the setup says that a check does not apply. The first violation raises `ConformanceError`.

May import meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import final

import trio
from attrs import evolve, frozen

from meshnode.errors import InvalidArgument
from meshnode.interfaces import CipherRequest, CryptoProvider, PublicKey, SignatureRequest
from meshnode.testing.conformance._check import ConformanceError, bare, expect, refused

__all__ = ["CHECKS", "ConformanceError", "CryptoCheck", "Setup"]

_NONCE, _KEY = bytes(12), bytes(range(32))
_SHA256 = hashlib.sha256(b"message").digest()


@final
@frozen
class Setup:
    """A provider under test: the names of a symmetric key of 32 bytes and of an RSA key pair that are there
    and may be used for everything; empty where the provider has no such keys.
    """

    open: Callable[[], AbstractAsyncContextManager[CryptoProvider]]
    symmetric: str = ""
    pair: str = ""


@final
@frozen
class CryptoCheck:
    """One rule a provider must keep."""

    name: str
    body: Callable[[Setup], Awaitable[None]]
    when: Callable[[Setup], bool]

    def __str__(self) -> str:
        return self.name

    async def run(self, setup: Setup) -> bool:
        if not self.when(setup):
            return False
        with bare():
            await self.body(setup)
        return True


async def what_is_encrypted_decrypts(setup: Setup) -> None:
    async with setup.open() as provider:
        expect(isinstance(provider, CryptoProvider), "the object lacks a method of CryptoProvider")
        for data in (b"", b"x", bytes(100_000)):
            asked = CipherRequest(setup.symmetric, "A256GCM", data, _NONCE, associated_data=b"about")
            made = await provider.encrypt(asked)
            expect(len(made.data) == len(data), "a GCM ciphertext is as long as its plaintext")
            expect(len(made.tag) == 16, "the tag is given apart, in 16 bytes")
            back = evolve(asked, data=made.data, tag=made.tag)
            expect(await provider.decrypt(back) == data, "it did not decrypt to what was encrypted")


async def what_was_changed_does_not_decrypt(setup: Setup) -> None:
    async with setup.open() as provider:
        asked = CipherRequest(setup.symmetric, "A256GCM", b"secret", _NONCE, associated_data=b"about")
        made = await provider.encrypt(asked)
        right = evolve(asked, data=made.data, tag=made.tag)
        for what, wrong in {
            "data": evolve(right, data=b"tecres"),
            "tag": evolve(right, tag=bytes(16)),
            "no tag": evolve(right, tag=b""),
            "nonce": evolve(right, nonce=b"x" * 12),
            "associated data": evolve(right, associated_data=b"else"),
        }.items():
            with refused(InvalidArgument, f"decrypting with another {what}"):
                await provider.decrypt(wrong)
        expect(await provider.decrypt(right) == b"secret", "a failure spoils what comes after it")


async def a_key_is_wrapped(setup: Setup) -> None:
    name, algorithm = (setup.symmetric, "A256KW") if setup.symmetric else (setup.pair, "RSA-OAEP-256")
    async with setup.open() as provider:
        made = await provider.wrap_key(CipherRequest(name, algorithm, _KEY), literal=True)
        expect(_KEY not in made.data, "the key stands in what was wrapped")
        expect(
            await provider.unwrap_key(CipherRequest(name, algorithm, made.data)) == _KEY,
            "another key was unwrapped",
        )


async def literal_keys_are_not_interpreted(setup: Setup) -> None:
    name, algorithm = (setup.symmetric, "A256KW") if setup.symmetric else (setup.pair, "RSA-OAEP-256")
    async with setup.open() as provider:
        text = b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"  # base64, if one likes
        made = await provider.wrap_key(CipherRequest(name, algorithm, text), literal=True)
        unwrapped = await provider.unwrap_key(CipherRequest(name, algorithm, made.data))
        expect(unwrapped == text, "the bytes of a literal key were changed")


async def a_signature_verifies(setup: Setup) -> None:
    async with setup.open() as provider:
        asked = SignatureRequest(setup.pair, "PS256", _SHA256)
        signed = evolve(asked, signature=await provider.sign(asked))
        expect(await provider.verify(signed) is True, "a right signature is True")
        other = evolve(signed, digest=hashlib.sha256(b"else").digest())
        expect(await provider.verify(other) is False, "the signature of something else is False")
        junk = evolve(signed, signature=b"junk")
        expect(await provider.verify(junk) is False, "what is no signature is False")


async def a_public_key_is_given(setup: Setup) -> None:
    async with setup.open() as provider:
        found = await provider.get_key(setup.pair)
        expect(isinstance(found, PublicKey), "get_key returns a PublicKey")
        expect(found.pem.startswith("-----BEGIN PUBLIC KEY-----"), "PEM is of the PKIX form")
        expect('"kty"' in found.jwk and '"d"' not in found.jwk, "the JWK is of the public part alone")


async def a_symmetric_key_stays_where_it_is(setup: Setup) -> None:
    async with setup.open() as provider:
        with refused(InvalidArgument, "asking for a symmetric key"):
            await provider.get_key(setup.symmetric)


async def what_is_unknown_is_refused(setup: Setup) -> None:
    async with setup.open() as provider:
        with refused(InvalidArgument, "a key that is not there"):
            await provider.get_key("no-such-key")
        with refused(InvalidArgument, "encrypting with a key that is not there"):
            await provider.encrypt(CipherRequest("no-such-key", "A256GCM", b"x", _NONCE))
        with refused(InvalidArgument, "an algorithm that is none"):
            await provider.encrypt(CipherRequest(setup.symmetric or setup.pair, "ROT13", b"x", _NONCE))


async def operations_run_side_by_side(setup: Setup) -> None:
    async with setup.open() as provider, trio.open_nursery() as nursery:
        for number in range(20):
            asked = SignatureRequest(setup.pair, "RS256", hashlib.sha256(bytes([number])).digest())
            nursery.start_soon(_signed, provider, asked)


async def _signed(provider: CryptoProvider, asked: SignatureRequest) -> None:
    signed = evolve(asked, signature=await provider.sign(asked))
    expect(await provider.verify(signed), "a signature made beside others does not verify")


def _collect(
    *bodies: Callable[[Setup], Awaitable[None]], when: Callable[[Setup], bool]
) -> tuple[CryptoCheck, ...]:
    return tuple(CryptoCheck(body.__name__, body, when) for body in bodies)


CHECKS: tuple[CryptoCheck, ...] = (
    *_collect(
        what_is_encrypted_decrypts,
        what_was_changed_does_not_decrypt,
        a_symmetric_key_stays_where_it_is,
        when=lambda setup: bool(setup.symmetric),
    ),
    *_collect(
        a_signature_verifies,
        a_public_key_is_given,
        operations_run_side_by_side,
        when=lambda setup: bool(setup.pair),
    ),
    *_collect(
        a_key_is_wrapped,
        literal_keys_are_not_interpreted,
        what_is_unknown_is_refused,
        when=lambda setup: bool(setup.symmetric or setup.pair),
    ),
)
