"""The conformance suite of cryptography providers itself: broken ones are caught."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from meshnode_crypto_dapr import KeyProvider
from meshnode_crypto_dapr._jwk import parse_key

from meshnode.errors import InvalidArgument
from meshnode.interfaces import CipherResult, PublicKey
from meshnode.testing.conformance import crypto

PAIR = rsa.generate_private_key(65537, 2048)
KEYS = {
    "aes": parse_key(json.dumps({"kty": "oct", "k": "A" * 43}).encode(), "json"),
    "rsa": parse_key(PAIR.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
}


async def find(name):
    if name not in KEYS:
        raise InvalidArgument("key not found")
    return KEYS[name]


class Provider:
    """A sound provider, for subclasses to break."""

    def __init__(self):
        self._sound = KeyProvider(find)

    async def get_key(self, name):
        return await self._sound.get_key(name)

    async def encrypt(self, request):
        return await self._sound.encrypt(request)

    async def decrypt(self, request):
        return await self._sound.decrypt(request)

    async def wrap_key(self, request, *, literal=False):
        return await self._sound.wrap_key(request, literal=literal)

    async def unwrap_key(self, request):
        return await self._sound.unwrap_key(request)

    async def sign(self, request):
        return await self._sound.sign(request)

    async def verify(self, request):
        return await self._sound.verify(request)


class TagInside(Provider):
    async def encrypt(self, request):
        made = await super().encrypt(request)
        return CipherResult(made.data + made.tag)


class Unauthenticated(Provider):
    async def decrypt(self, request):
        try:
            return await super().decrypt(request)
        except InvalidArgument:
            return request.data


class Interpreting(Provider):
    async def wrap_key(self, request, *, literal=False):
        return await super().wrap_key(request)


class Plain(Provider):
    async def wrap_key(self, request, *, literal=False):
        return CipherResult(request.data)

    async def unwrap_key(self, request):
        return request.data


class Trusting(Provider):
    async def verify(self, request):
        return True


class Talkative(Provider):
    async def get_key(self, name):
        return PublicKey(name, "-----BEGIN PRIVATE KEY-----", '{"kty":"RSA","d":"secret"}')


def setup_of(kind):
    @asynccontextmanager
    async def opened():
        yield kind()

    return crypto.Setup(opened, symmetric="aes", pair="rsa")


@pytest.mark.parametrize("check", crypto.CHECKS, ids=str)
async def test_a_sound_provider_passes(check):
    assert await check.run(setup_of(Provider))


@pytest.mark.parametrize("kind", [TagInside, Unauthenticated, Interpreting, Plain, Trusting, Talkative])
async def test_a_broken_provider_is_caught(kind):
    caught = 0
    for check in crypto.CHECKS:
        try:
            await check.run(setup_of(kind))
        except (crypto.ConformanceError, InvalidArgument):
            caught += 1
    assert caught


async def test_checks_that_do_not_apply_are_left_out():
    without = crypto.Setup(setup_of(Provider).open)
    assert not any([await check.run(without) for check in crypto.CHECKS])
