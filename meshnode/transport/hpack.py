"""HPACK (RFC 7541), restricted and tuned for gRPC.

Decoding is complete: static and dynamic table, Huffman, size updates. Three things keep it cheap and bounded:

* Blocks that leave the dynamic table alone are remembered by their bytes until the table changes, and the
  same `HeaderBlock` object comes back; what callers derive from it (`HeaderBlock.cache`) is then derived
  once, not once per request.
* A block is always read to its end, because the table must stay in step with the peer's; only then is the
  size limit checked. A block that is too large costs its stream, not the connection. How many bytes a block
  may have is the connection's limit.
* Everything that is kept (table, remembered blocks) has a fixed ceiling.

Encoding is stateless: static table or literals, never the dynamic table, so an encoded block is valid on
every connection and may be kept and shared. Because the peer may shrink its table below the default at any
time, a connection sends `NO_DYNAMIC_TABLE` in front of its first block; after that no setting of the peer
can make our blocks wrong.

Sans-io; imports nothing from meshnode but `_huffman`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, final

from meshnode.transport import _huffman
from meshnode.transport._static_table import STATIC_PAIRS

__all__ = ["NO_DYNAMIC_TABLE", "Decoder", "HeaderBlock", "HeaderListTooLarge", "HpackError", "encode"]

Pair = tuple[bytes, bytes]

NO_DYNAMIC_TABLE: Final = b"\x20"
"""A size update to zero: put in front of the first header block of a connection."""

ENTRY_OVERHEAD: Final = (
    32  # what one entry counts beyond its bytes, in the table and in SETTINGS_MAX_HEADER_LIST_SIZE
)
_INTEGER_BYTES: Final = (
    5  # continuation bytes of one integer; more than any number that can matter, and few enough to stay small
)
_CACHED_BLOCKS: Final = 128
_CACHED_BLOCK_SIZE: Final = 1024

_STATIC: Final[tuple[Pair, ...]] = ((b"", b""), *STATIC_PAIRS)  # indices start at 1
_FIRST_DYNAMIC: Final = len(_STATIC)
_NEWEST: Final = (
    _FIRST_DYNAMIC - 1
)  # index i of the dynamic table is entry _NEWEST - i of a list whose newest is last


class HpackError(ValueError):
    """The block cannot be decoded; the state is lost, so the connection must end with COMPRESSION_ERROR."""


class HeaderListTooLarge(Exception):
    """The list exceeds the limit; the block was decoded and the table is in step, so only the stream ends."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"header list of {size} bytes exceeds the limit of {limit}")
        self.size = size
        self.limit = limit


@final
class HeaderBlock(list[Pair]):
    """One decoded header list. Shared between requests with the same block: treat it as read-only.

    `cache` belongs to whoever handles the block and starts as None; `verdict` likewise belongs to `rules`.
    """

    __slots__ = ("_map", "cache", "verdict")

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        list.__init__(self, pairs)
        self._map: dict[bytes, bytes] | None = None
        self.cache: Any = None
        self.verdict: Any = None

    @property
    def map(self) -> dict[bytes, bytes]:
        """Name to value, computed once; of a repeated name the last value."""
        found = self._map
        if found is None:
            found = self._map = dict(self)
        return found

    def get(self, name: bytes, default: bytes | None = None) -> bytes | None:
        """The value of a header, the last one if it is repeated."""
        found = self._map
        if found is None:
            found = self._map = dict(self)
        return found.get(name, default)


def header_list_size(pairs: Iterable[Pair]) -> int:
    """What a list counts against SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113, 6.5.2)."""
    return sum(len(name) + len(value) + ENTRY_OVERHEAD for name, value in pairs)


@final
class Decoder:
    """The decoding half of one connection."""

    __slots__ = ("_blocks", "_dynamic", "_limit", "_max_size", "_size", "_widest")

    def __init__(self, max_table_size: int = 4096) -> None:
        self._limit = max_table_size  # what our SETTINGS_HEADER_TABLE_SIZE allows
        self._max_size = max_table_size  # what the peer chose
        self._size = 0
        self._widest = 64  # at least the size of any entry there is or was; no static entry has more
        self._dynamic: list[Pair] = []  # newest last, so that adding is cheap
        self._blocks: dict[bytes, HeaderBlock] = {}

    @property
    def table_size(self) -> int:
        """The bytes that the dynamic table counts now."""
        return self._size

    def decode(self, block: bytes, max_list_size: int) -> HeaderBlock:
        """Decode a whole block; HpackError is fatal for the connection, HeaderListTooLarge for the stream."""
        known = self._blocks.get(block)
        if known is None:
            known = HeaderBlock()
            try:
                changed = self._read(block, known)
            except IndexError:
                raise HpackError("header block ends early or names an entry that does not exist") from None
            except _huffman.HuffmanError as error:
                raise HpackError(str(error)) from None
            if not changed:
                self._remember(block, known)
        # An upper bound that costs nothing comes first: adding up fields costs as much as reading them.
        if len(known) * self._widest + 2 * len(block) > max_list_size:
            size = header_list_size(known)
            if size > max_list_size:
                raise HeaderListTooLarge(size, max_list_size)
        return known

    def _remember(self, block: bytes, known: HeaderBlock) -> None:
        if len(block) <= _CACHED_BLOCK_SIZE:
            if len(self._blocks) >= _CACHED_BLOCKS:
                self._blocks.clear()
            self._blocks[block] = known

    def _read(self, block: bytes, pairs: HeaderBlock) -> bool:
        """Append the fields of a block; tells whether reading them may have changed the dynamic table.

        One long loop on purpose: short plain strings and insertions in place instead of in functions of
        their own save 2 of 7 microseconds for a block of ten fields.
        """
        position = self._size_updates(block) if block and block[0] & 0xE0 == 0x20 else 0
        changed = position
        append = pairs.append
        dynamic, size, limit, widest = self._dynamic, self._size, self._max_size, self._widest
        end = len(block)
        while position < end:
            byte = block[position]
            position += 1
            if byte & 0x80:  # indexed field
                index = byte & 0x7F
                if index == 0x7F:
                    index, position = _integer(block, position, 0x7F)
                if index < _FIRST_DYNAMIC:
                    if not index:
                        raise HpackError("index 0 is not a field")
                    append(_STATIC[index])
                else:
                    append(dynamic[_NEWEST - index])
                continue
            indexing = byte & 0x40
            if not indexing and byte & 0x20:
                raise HpackError("size update after the first field")
            index = mask = 0x3F if indexing else 0x0F
            index &= byte
            if index == mask:
                index, position = _integer(block, position, mask)
            if index:
                name = _STATIC[index][0] if index < _FIRST_DYNAMIC else dynamic[_NEWEST - index][0]
            else:
                length = block[position]
                stop = position + 1 + length
                if length < 0x7F and stop < end:  # short and not compressed: most strings
                    name = block[position + 1 : stop]
                    position = stop
                else:
                    name, position = _string(block, position)
            length = block[position]
            stop = position + 1 + length
            if length < 0x7F and stop <= end:
                value = block[position + 1 : stop]
                position = stop
            else:
                value, position = _string(block, position)
            pair = (name, value)
            append(pair)
            if indexing:
                changed = 1
                dynamic.append(pair)
                width = len(name) + len(value) + ENTRY_OVERHEAD
                if width > widest:
                    widest = width
                size += width
                while size > limit:  # an entry larger than the table empties it
                    old = dynamic.pop(0)
                    size -= len(old[0]) + len(old[1]) + ENTRY_OVERHEAD
        if changed:
            self._size, self._widest = size, widest
            self._blocks.clear()
        return changed > 0

    def _size_updates(self, block: bytes) -> int:
        """Apply the size updates a block begins with. Two are enough for a writer, yet some send more."""
        position = 0
        while position < len(block) and block[position] & 0xE0 == 0x20:
            size = block[position] & 0x1F
            position += 1
            if size == 0x1F:
                size, position = _integer(block, position, 0x1F)
            if size > self._limit:
                raise HpackError(f"dynamic table size {size} exceeds the {self._limit} we allow")
            self._max_size = size
            while self._size > size:
                old = self._dynamic.pop(0)
                self._size -= len(old[0]) + len(old[1]) + ENTRY_OVERHEAD
        return position


def _integer(block: bytes, position: int, value: int) -> tuple[int, int]:
    """Read the continuation of an integer whose prefix was full; `value` is the prefix's maximum."""
    for shift in range(0, 7 * _INTEGER_BYTES, 7):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise HpackError("integer too long")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    first = block[position]
    position += 1
    length = first & 0x7F
    if length == 0x7F:
        length, position = _integer(block, position, 0x7F)
    end = position + length
    data = block[position:end]
    if len(data) != length:
        raise HpackError("string runs past the end of the block")
    return (_huffman.decode(data) if first & 0x80 else data), end


# --- encoding

_SENSITIVE: Final = frozenset(
    {b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"dapr-api-token"}
)
_KNOWN_NAMES: Final = 1024
_SHORT: Final = tuple(bytes((length,)) for length in range(0x7F))  # lengths that fit the prefix


def _encode_integer(value: int, mask: int, first: int) -> bytes:
    if value < mask:
        return bytes((first | value,))
    encoded = bytearray((first | mask,))
    value -= mask
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_INDEXED: Final = {
    pair: _encode_integer(index, 0x7F, 0x80) for index, pair in enumerate(_STATIC) if index and pair[1]
}
_NAME_INDEX: Final = {pair[0]: index for index, pair in reversed(list(enumerate(_STATIC))) if index}
_names: dict[
    bytes, bytes
] = {}  # name -> everything of a literal field up to its value; bounded by _KNOWN_NAMES


def _encode_name(name: bytes) -> bytes:
    first = 0x10 if name in _SENSITIVE else 0x00  # never indexed, or not indexed by us
    index = _NAME_INDEX.get(name)
    if index is not None:
        encoded = _encode_integer(index, 0x0F, first)
    else:
        encoded = bytes((first,)) + _encode_integer(len(name), 0x7F, 0) + name
    if len(name) <= 64:
        if len(_names) >= _KNOWN_NAMES:
            _names.clear()
        _names[name] = encoded
    return encoded


def encode(headers: Iterable[Pair]) -> bytes:
    """Encode a header list without any state: the result may be cached and sent on any connection."""
    parts: list[bytes] = []
    append = parts.append
    for pair in headers:
        indexed = _INDEXED.get(pair)
        if indexed is not None:
            append(indexed)
            continue
        name, value = pair
        append(_names.get(name) or _encode_name(name))
        length = len(value)
        append(_SHORT[length] if length < 0x7F else _encode_integer(length, 0x7F, 0))
        append(value)
    return b"".join(parts)
