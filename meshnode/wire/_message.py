"""The base of the generated messages: betterproto2's, with encoding and decoding left to the generated codec.

May import: betterproto2.
"""

from __future__ import annotations

import betterproto2

__all__ = ["Message"]


class Message(betterproto2.Message):
    """Base of every generated message."""
