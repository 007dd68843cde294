"""The base of the generated messages: betterproto2's, with the generated codec under encoding and decoding.

The codecs lie in modules of their own, one per .proto file, loaded when the first message of that file is
encoded or decoded: a node that never touches a building block never loads its codec.

May import: betterproto2, meshnode.wire._errors, meshnode.wire._runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any, ClassVar, final

import betterproto2

from ._errors import DecodeError
from ._runtime import read_uint64

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Message"]


@final
class _LazyFields:
    """Makes a generated class a dataclass when somebody asks for its fields.

    Nobody does in a node that runs: encoding, decoding and `__init__` are generated. At start, processing all
    messages as dataclasses took 100 of 140 ms.
    """

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        if owner is Message:
            raise AttributeError("__dataclass_fields__")
        dataclass(init=False, eq=False, repr=False, match_args=False)(owner)
        return owner.__dict__["__dataclass_fields__"]


class Message(betterproto2.Message):
    """Base of every generated message."""

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Any]]
        # The module that replaces `__bytes__`, `parse` and `_merge` of this class by straight-line code.
        _codec: ClassVar[str]
    else:
        __dataclass_fields__ = _LazyFields()

    def __bytes__(self) -> bytes:
        _load(type(self))
        return bytes(self)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Decode a message. Raises DecodeError when `data` is none of this type."""
        _load(cls)
        return cls.parse(data)

    @classmethod
    def _merge(cls, data: bytes, message: Any) -> Any:
        _load(cls)
        return cls._merge(data, message)

    def _is_pydantic(self) -> bool:
        return False

    def load(self, stream: Any, size: int | None = None) -> Self:
        """Merge an encoded message, read from `stream`, into this one.

        `size` is its length; None reads all there is, betterproto2.SIZE_DELIMITED a length in front of it.
        """
        if size == betterproto2.SIZE_DELIMITED:
            size = _read_size(stream)
        data = stream.read() if size is None else stream.read(size)
        if size is not None and len(data) != size:
            raise DecodeError(f"the stream ended after {len(data)} of {size} bytes")
        merged: Self = type(self)._merge(data, self)
        return merged

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (type(self), bytes(self))

    def SerializeToString(self) -> bytes:  # noqa: N802 - the name that other libraries call
        """The same as `bytes(message)`."""
        return bytes(self)


def _unpickle(cls: type[Message], data: bytes) -> Message:
    return cls.parse(data)


def _load(cls: type[Message]) -> None:
    """Import the codec module of a class, which attaches itself to the classes of its file."""
    import_module(f"meshnode.wire.{cls._codec}")
    if cls.__bytes__ is Message.__bytes__:
        raise TypeError(f"{cls.__name__} has no codec in meshnode.wire.{cls._codec}")


def _read_size(stream: Any) -> int:
    prefix = BytesIO()
    while byte := stream.read(1):
        prefix.write(byte)
        if byte[0] < 128:
            return read_uint64(prefix.getvalue(), 0)[0]
    raise DecodeError("the stream ended before the message's length")
