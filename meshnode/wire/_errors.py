"""The one error of decoding. On its own so that importing it costs nothing."""

from __future__ import annotations

from typing import final

__all__ = ["DecodeError"]


@final
class DecodeError(ValueError):
    """The bytes are not a valid encoding of the message type they were given to."""
