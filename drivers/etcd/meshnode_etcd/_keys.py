"""Keys below the prefix, as Dapr's component has them: `<keyPrefixPath>/<key>`. No I/O."""

from __future__ import annotations

from typing import final

from attrs import frozen

__all__ = ["Keys"]


@final
@frozen
class Keys:
    """`prefix` is `keyPrefixPath`."""

    prefix: str

    def of(self, name: str) -> bytes:
        return f"{self.prefix}/{name}".encode()

    def name(self, key: bytes) -> str | None:
        """None for what is no text."""
        try:
            return key[len(self.first) :].decode()
        except UnicodeDecodeError:
            return None

    @property
    def first(self) -> bytes:
        """What all keys begin with."""
        return f"{self.prefix}/".encode()

    @property
    def end(self) -> bytes:
        """What comes after them all: `0` is the character after `/`."""
        return f"{self.prefix}0".encode()
