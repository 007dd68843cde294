"""Length-prefixed gRPC messages: cutting them out of DATA, and their compression.

A *frame* is a message with its five-byte prefix: one byte of flags, four of length. What is only passed on
stays a frame. Sizes are checked from the prefix, before a message is collected, and again while it is
decompressed, so neither a false length nor a compression bomb makes us hold more than the limit. Compressed
messages are decompressed one by one and bounded; the flag and the encoding must agree.

Sans-io; imports grpclib for the classes we share with it.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import Final, final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

__all__ = [
    "DEFAULT_MAX_SIZE",
    "ENCODINGS",
    "IDENTITY",
    "PREFIX_SIZE",
    "Assembler",
    "check_encoding",
    "choose_encoding",
    "compress",
    "decompress",
    "frame",
    "message_of",
    "too_large",
]

DEFAULT_MAX_SIZE: Final = 4 * 1024 * 1024
PREFIX_SIZE: Final = 5
IDENTITY: Final = b"identity"
ENCODINGS: Final = (IDENTITY, b"deflate", b"gzip")

_PREFIX: Final = Struct(">BL")
_WINDOW_BITS: Final = {b"deflate": 15, b"gzip": 31}  # zlib's and gzip's container
_LEVEL: Final = 1  # messages are compressed while a caller waits


def frame(message: bytes, compressed: bool = False) -> bytes:
    """A message with its prefix. `message` is already compressed if `compressed` is set."""
    return _PREFIX.pack(compressed, len(message)) + message


def too_large(size: int, limit: int) -> GRPCError:
    """The error for a message over the limit, in grpc-go's words."""
    return GRPCError(
        Status.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {limit})"
    )


@final
class Assembler:
    """Cuts the DATA of one stream into frames; holds at most one unfinished frame of `max_size`."""

    __slots__ = ("_max_size", "_missing", "_partial")

    def __init__(self, max_size: int = DEFAULT_MAX_SIZE) -> None:
        self._max_size = max_size
        self._partial = bytearray()
        self._missing = 0  # bytes until the frame in _partial is whole; 0 while its prefix is not

    @property
    def empty(self) -> bool:
        """Whether the stream may end here: no frame has been begun."""
        return not self._partial

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes; raises GRPCError once a frame cannot be accepted."""
        if not self._partial:
            # Nearly every DATA frame is one message: it is handed on as it is.
            if len(data) >= PREFIX_SIZE and PREFIX_SIZE + self._check(data, 0) == len(data):
                return [data]
            return self._cut(data, 0)
        return self._cut(data, self._complete(data))

    def finish(self) -> None:
        """Say that no more data comes; raises GRPCError if a frame is left unfinished."""
        if self._partial:
            raise GRPCError(Status.INTERNAL, "the stream ended inside a message")

    def _check(self, data: bytes | bytearray, position: int) -> int:
        flags, length = _PREFIX.unpack_from(data, position)
        if flags > 1:
            raise GRPCError(Status.INTERNAL, f"message with unknown flags {flags:#04x}")
        if length > self._max_size:
            raise too_large(length, self._max_size)
        return int(length)

    def _complete(self, data: bytes) -> int:
        """Move the head of `data` to the unfinished frame; answers how many bytes were taken."""
        partial = self._partial
        taken = 0
        if not self._missing:
            taken = PREFIX_SIZE - len(partial)
            partial += data[:taken]
            if len(partial) < PREFIX_SIZE:
                return len(data)
            self._missing = self._check(partial, 0)
        end = taken + self._missing
        partial += data[taken:end] if taken or end < len(data) else data
        self._missing = max(0, end - len(data))
        return min(end, len(data))

    def _cut(self, data: bytes, position: int) -> list[bytes]:
        frames: list[bytes] = []
        if self._partial:
            if self._missing or len(self._partial) < PREFIX_SIZE:
                return frames
            frames.append(bytes(self._partial))
            self._partial = bytearray()
        size = len(data)
        while size - position >= PREFIX_SIZE:
            length = self._check(data, position)
            end = position + PREFIX_SIZE + length
            if end > size:
                self._missing = end - size
                break
            frames.append(data[position:end])
            position = end
        self._partial += data[position:]
        return frames


# --- compression


def check_encoding(encoding: bytes | None) -> bytes | None:
    """The peer's `grpc-encoding` as a codec to use, None for identity; raises GRPCError for an unknown one.

    A server adds `rules.ACCEPT_ENCODING` to that answer.
    """
    if encoding is None or encoding == IDENTITY:
        return None
    if encoding not in _WINDOW_BITS:
        name = encoding[:64].decode("latin-1")
        message = f'grpc: Decompressor is not installed for grpc-encoding "{name}"'
        raise GRPCError(Status.UNIMPLEMENTED, message)
    return encoding


def choose_encoding(accepted: bytes | None, wanted: bytes | None) -> bytes | None:
    """What to send with: `wanted` if the peer's `grpc-accept-encoding` has it, else None for identity."""
    if not accepted or wanted is None or wanted == IDENTITY:
        return None
    return wanted if wanted in [name.strip() for name in accepted.split(b",")] else None


def compress(message: bytes, encoding: bytes) -> bytes:
    """Compress with one of ENCODINGS."""
    if encoding == IDENTITY:
        return message
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return compressor.compress(message) + compressor.flush()


def decompress(data: bytes, encoding: bytes, max_size: int = DEFAULT_MAX_SIZE) -> bytes:
    """Decompress, giving up as soon as the result exceeds `max_size`; raises GRPCError."""
    if encoding == IDENTITY:
        return data
    pieces: list[bytes] = []
    room = max_size
    while True:  # a gzip file may consist of several members
        decompressor = zlib.decompressobj(_WINDOW_BITS[encoding])
        try:
            piece = decompressor.decompress(data, room + 1)
        except zlib.error as error:
            raise GRPCError(Status.INTERNAL, f"grpc: failed to decompress the message: {error}") from None
        if len(piece) > room:
            message = f"grpc: received message after decompression larger than max {max_size}"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, message)
        if not decompressor.eof:
            raise GRPCError(Status.INTERNAL, "grpc: failed to decompress the message: it ends early")
        pieces.append(piece)
        room -= len(piece)
        data = decompressor.unused_data
        if not data:
            return b"".join(pieces)


def message_of(whole: bytes, encoding: bytes | None, max_size: int = DEFAULT_MAX_SIZE) -> bytes:
    """The message in a frame, decompressed; `encoding` is the stream's, as `check_encoding` gave it."""
    if not whole[0]:
        return whole[PREFIX_SIZE:]
    if encoding is None:
        message = "grpc: compressed flag set with identity or empty encoding"
        raise GRPCError(Status.INTERNAL, message)
    return decompress(whole[PREFIX_SIZE:], encoding, max_size)
