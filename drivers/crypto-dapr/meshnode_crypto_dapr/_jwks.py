"""`crypto.dapr.jwks`: keys in a JSON Web Key Set: in the component itself, in a file or at an address."""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import final

import httpx
import trio
from attrs import frozen

from meshnode.errors import ComponentError, ComponentUnavailable, InvalidArgument, MeshError
from meshnode.interfaces import CryptoProvider, Driver, DriverContext, option
from meshnode_crypto_dapr._jwk import keys_of_set
from meshnode_crypto_dapr._keys import Key
from meshnode_crypto_dapr._provider import KeyProvider

__all__ = ["JwksOptions", "jwks_driver"]

_MOST = 8 << 20
_SHORTEST = 1.0
"""Seconds between two fetches, whatever the component says."""


@frozen
class JwksOptions:
    jwks: str = option(
        "jwks",
        "The set: as JSON (in base64 or not), as an http or https address, or as the path of a file.",
        secret=True,
    )
    request_timeout: timedelta = option(
        "requestTimeout", "How long fetching the set may take.", default=timedelta(seconds=30)
    )
    min_refresh_interval: timedelta = option(
        "minRefreshInterval", "How often an address is asked again.", default=timedelta(minutes=10)
    )


@final
class _Set:
    """Keys that do not change."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self.keys = keys

    async def find(self, name: str) -> Key:
        await trio.lowlevel.checkpoint()
        try:
            return self.keys[name]
        except KeyError:
            raise InvalidArgument("key not found") from None


@final
class _File:
    """Keys in a file, read again when it has changed."""

    def __init__(self, path: str, context: DriverContext) -> None:
        self._path = trio.Path(path)
        self._context = context
        self._stamp: tuple[int, int] | None = None
        self._set = _Set({})

    async def load(self) -> None:
        """Raises `ComponentError`."""
        try:
            status = await self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            keys = await _parsed(await self._path.read_bytes())
        except OSError as error:
            raise ComponentError(f"the JWKS cannot be read: {error.strerror}") from error
        except InvalidArgument as error:
            raise ComponentError(f"the file {error}") from error
        self._set, self._stamp = _Set(keys), stamp

    async def find(self, name: str) -> Key:
        try:
            await self.load()
        except MeshError as error:
            self._context.log.warning("%s: the old JWKS stays in use: %s", self._context.component, error)
        return await self._set.find(name)


@final
class _Address:
    """Keys at an address, fetched again and again by `refresh`."""

    def __init__(self, options: JwksOptions, context: DriverContext, tls: ssl.SSLContext) -> None:
        self._options = options
        self._context = context
        self._tls = tls
        self._set = _Set({})

    async def load(self) -> None:
        """Raises `ComponentUnavailable`, `ComponentError` when what comes is no set."""
        seconds = self._options.request_timeout.total_seconds()
        try:
            with trio.fail_after(seconds):
                self._set = _Set(await _parsed(await self._fetch()))
        except trio.TooSlowError:
            raise ComponentUnavailable(f"the JWKS was not there within {seconds:g} s") from None
        except (httpx.TransportError, OSError) as error:
            raise ComponentUnavailable(f"the JWKS cannot be fetched: {error}") from error
        except (httpx.InvalidURL, InvalidArgument) as error:
            raise ComponentError(f"the answer of the JWKS's address {error}") from error

    async def _fetch(self) -> bytes:
        headers = {"accept": "application/json"}
        async with (
            httpx.AsyncClient(verify=self._tls, timeout=None, follow_redirects=True) as client,
            client.stream("GET", self._options.jwks.strip(), headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ComponentUnavailable(f"the JWKS's address answered {response.status_code}")
            data = b""
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > _MOST:
                    raise InvalidArgument(f"has more than {_MOST} bytes")
            return data

    async def refresh(self) -> None:
        while True:
            await trio.sleep(max(_SHORTEST, self._options.min_refresh_interval.total_seconds()))
            try:
                await self.load()
            except MeshError as error:
                self._context.log.warning("%s: the old JWKS stays in use: %s", self._context.component, error)

    async def find(self, name: str) -> Key:
        return await self._set.find(name)


@asynccontextmanager
async def _open(options: JwksOptions, context: DriverContext) -> AsyncIterator[CryptoProvider]:
    text = options.jwks.strip()
    if text.lower().startswith(("http://", "https://")):
        tls = await trio.to_thread.run_sync(ssl.create_default_context)
        address = _Address(options, context, tls)
        await address.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(address.refresh)
            yield KeyProvider(address.find)
            nursery.cancel_scope.cancel()
    elif (given := _given(text)) is not None:
        yield KeyProvider(_Set(given).find)
    else:
        file = _File(text, context)
        await file.load()
        yield KeyProvider(file.find)


async def _parsed(data: bytes) -> Mapping[str, Key]:
    # In a thread: OpenSSL checks private RSA keys when it reads them, which takes milliseconds each.
    return await trio.to_thread.run_sync(keys_of_set, data)


def _given(text: str) -> Mapping[str, Key] | None:
    """The keys of a set that is the text itself, None when it has to be a path. Raises `ComponentError`."""
    try:
        if text.startswith("{"):
            return keys_of_set(text)
        decoded = base64.b64decode(text, validate=True)
        return keys_of_set(decoded) if decoded.lstrip().startswith(b"{") else None
    except (binascii.Error, ValueError):
        return None
    except InvalidArgument as error:
        raise ComponentError(f"jwks {error}") from error


jwks_driver: Driver[CryptoProvider] = Driver(
    type="crypto.dapr.jwks",
    metadata=JwksOptions,
    open=_open,
    summary="Cryptography with the keys of a JSON Web Key Set.",
)
