"""The answer's body and metadata."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Protocol, final

import httpx
import trio

__all__ = ["Answer", "read_answer"]

# These belong to the connection; Go's client keeps them to itself.
_HIDDEN = frozenset({"transfer-encoding", "trailer"})
_PIECE = 1 << 16
_GZIP = 31


@final
class Answer:
    """`cut` says that the body was longer than what is here."""

    def __init__(self, response: httpx.Response, body: bytes, *, decoded: bool, cut: bool) -> None:
        self.status = response.status_code
        self.body = body
        self.cut = cut
        self.metadata = _metadata(response, decoded=decoded)


async def read_answer(response: httpx.Response, *, most: int, decode: bool) -> Answer:
    """Reads at most `most` bytes of the body, 0 or less: all; undoes gzip where `decode` allows.

    Where that is not the whole, reading is cancelled: httpx reads by async generators within each other, and
    only an exception from the innermost ends them all at once.
    """
    gzipped = decode and response.headers.get("content-encoding", "").lower() == "gzip"
    body: _Body = _Inflated(most) if gzipped else _Plain(most)
    with trio.CancelScope() as scope:
        async for piece in response.aiter_raw():
            if not body.feed(piece):
                scope.cancel()
    return Answer(response, body.end(), decoded=gzipped, cut=body.cut)


class _Body(Protocol):
    @property
    def cut(self) -> bool: ...

    def feed(self, piece: bytes) -> bool:
        """False where nothing more is wanted."""
        ...

    def end(self) -> bytes: ...


@final
class _Plain:
    """Up to `most` bytes, 0 or less: all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._body = bytearray()
        self.cut = False

    def feed(self, piece: bytes) -> bool:
        self._body += piece
        if 0 < self._most < len(self._body):
            del self._body[self._most :]
            self.cut = True
        return not self.cut

    def end(self) -> bytes:
        return bytes(self._body)


@final
class _Inflated:
    """gzip undone, in pieces, for a few bytes can become a great many."""

    def __init__(self, most: int) -> None:
        self._plain = _Plain(most)
        self._member = zlib.decompressobj(wbits=_GZIP)
        self._complete = True
        self._error: zlib.error | None = None

    @property
    def cut(self) -> bool:
        return self._plain.cut

    def feed(self, piece: bytes) -> bool:
        full = False
        try:
            while (piece or full) and not self._plain.cut:
                if self._member.eof:
                    self._member = zlib.decompressobj(wbits=_GZIP)
                found = self._member.decompress(piece, _PIECE)
                self._plain.feed(found)
                piece = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
                full = len(found) == _PIECE and not self._member.eof
        except zlib.error as error:
            self._error = error
            return False
        self._complete = self._member.eof
        return not self._plain.cut

    def end(self) -> bytes:
        """Raises what was wrong."""
        if self._error is not None:
            raise self._error
        if not self._complete and not self._plain.cut:
            raise EOFError("the compressed body ends too early")
        return self._plain.end()


def _metadata(response: httpx.Response, *, decoded: bool) -> Mapping[str, str]:
    hidden = _HIDDEN | {"content-encoding", "content-length"} if decoded else _HIDDEN
    found: dict[str, str] = {}
    for raw_name, raw_value in response.headers.raw:
        name = raw_name.decode("latin-1")
        if name.lower() in hidden:
            continue
        value = raw_value.decode("utf-8", errors="replace")
        key = "-".join(part.capitalize() for part in name.split("-"))
        found[key] = f"{found[key]}, {value}" if key in found else value
    reason = response.extensions.get("reason_phrase", b"").decode("utf-8", errors="replace")
    found["statusCode"] = str(response.status_code)
    found["status"] = f"{response.status_code} {reason}"
    return found
