"""The binding, on trio's side."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import final

import trio_asyncio
from aiosmtplib import SMTPException, SMTPRecipientsRefused, SMTPResponseException

from meshnode.errors import BindingError, ComponentError, ComponentUnavailable, InvalidArgument
from meshnode.interfaces import BindingRequest, BindingResult, DriverContext
from meshnode_bindings_smtp._mail import compose
from meshnode_bindings_smtp._options import Options
from meshnode_bindings_smtp._send import send

__all__ = ["Smtp"]


@final
class Smtp:
    """An `OutputBinding`."""

    def __init__(self, options: Options, context: DriverContext, tls: ssl.SSLContext) -> None:
        self._options = options
        self._tls = tls
        self._wall = context.wall

    @property
    def operations(self) -> Sequence[str]:
        return ("create",)

    async def invoke(self, request: BindingRequest) -> BindingResult:
        if request.operation != "create":
            raise InvalidArgument(f"unsupported operation {request.operation}")
        mail = compose(self._options, request.metadata, request.data, self._wall())
        try:
            await _on_asyncio(partial(send, self._options, self._tls, mail))
        except (SMTPException, OSError) as error:
            raise self._translated(error) from error
        return BindingResult()

    def _translated(self, error: Exception) -> ComponentError:
        """Codes below 500 are for now, those above for good."""
        message = f"sending mail by {self._options.host}:{self._options.port} failed: {error}"
        if isinstance(error, SMTPRecipientsRefused):
            return BindingError(message)
        if isinstance(error, SMTPResponseException):
            return ComponentUnavailable(message) if error.code < 500 else BindingError(message)
        if isinstance(error, OSError):
            return ComponentUnavailable(message)
        return BindingError(message)


async def _on_asyncio(function: Callable[[], Awaitable[None]]) -> None:
    """Runs the function on the asyncio side until it returns; cancelling this cancels it."""
    await trio_asyncio.aio_as_trio(function)()  # type: ignore[attr-defined,no-untyped-call]
