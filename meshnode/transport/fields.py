"""HTTP/2's own rules for header fields (RFC 9113, section 8): what makes a request, response or trailer
section malformed.

Malformed sections end their stream with PROTOCOL_ERROR. The verdict is kept on the block, so that a block
which the decoder hands out again is not judged again.

Values may begin or end with white space although RFC 9113 forbids it: gRPC allows such metadata and peers
send it.

Sans-io; imports `hpack` from its own package.
"""

from __future__ import annotations

import re
from typing import Final

from meshnode.transport.hpack import HeaderBlock

__all__ = ["MalformedHeaders", "check_request", "check_response", "check_trailers", "content_length"]

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_REQUEST: Final = frozenset({b":method", b":scheme", b":path"})
_REQUEST_ALL: Final = _REQUEST | {b":authority"}
_KEPT_NAMES: Final = 1024
_KEPT_LAYOUTS: Final = 512
Names = tuple[bytes, ...]
_good_layouts: dict[Names, int] = {}  # names found correct before -> pseudo-headers; bounded
_good_requests: set[Names] = set()  # those that can open a request; bounded
_good_names: set[bytes] = set()  # regular names found correct before; bounded by _KEPT_NAMES


class MalformedHeaders(ValueError):
    """A header section that HTTP/2 calls malformed."""


def check_request(block: HeaderBlock) -> None:
    """Raise MalformedHeaders unless the block can open a request."""
    if block.verdict is check_request:
        return
    names, pseudo = _check_section(block)
    if names not in _good_requests:
        found = set(names[:pseudo])
        if len(found) != pseudo or not _REQUEST <= found <= _REQUEST_ALL:
            raise MalformedHeaders("request with missing, repeated or unknown pseudo-header fields")
        if names in _good_layouts:
            if len(_good_requests) >= _KEPT_LAYOUTS:
                _good_requests.clear()
            _good_requests.add(names)
    if not block.get(b":path"):
        raise MalformedHeaders("request with an empty :path")
    block.verdict = check_request


def check_response(block: HeaderBlock) -> None:
    """Raise MalformedHeaders unless the block can open a response."""
    if block.verdict is check_response:
        return
    _, pseudo = _check_section(block)
    status = block.get(b":status", b"") or b""
    if pseudo != 1 or len(status) != 3 or not status.isdigit():
        raise MalformedHeaders("response without exactly one :status")
    block.verdict = check_response


def check_trailers(block: HeaderBlock) -> None:
    """Raise MalformedHeaders unless the block can end a request or response."""
    if block.verdict is check_trailers:
        return
    if _check_section(block)[1]:
        raise MalformedHeaders("pseudo-header field in a trailer section")
    block.verdict = check_trailers


def content_length(block: HeaderBlock) -> int | None:
    """The announced length of the body, to be held against the DATA that arrives; raises MalformedHeaders."""
    value = block.get(b"content-length")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise MalformedHeaders("content-length is not a number")
    return int(value)


def _check_section(block: HeaderBlock) -> tuple[Names, int]:
    """Check what every section must keep to; answers its names and how many pseudo-header fields lead it."""
    names: Names
    names, values = zip(*block, strict=True) if block else ((), ())
    pseudo = _good_layouts.get(names)
    if pseudo is None:
        pseudo = _check_layout(names)
    joined = b"".join(values)
    if len(joined.translate(None, b"\0\r\n")) != len(joined):
        raise MalformedHeaders("field value with NUL, CR or LF")
    if b"te" in names and block.get(b"te") != b"trailers":
        raise MalformedHeaders("te may only say trailers")
    return names, pseudo


def _check_layout(names: Names) -> int:
    """Check the names. Peers repeat theirs in the same order, so the verdict is kept: 1 µs each."""
    pseudo = 0
    for position, name in enumerate(names):
        if name[:1] == b":":
            if position != pseudo:
                raise MalformedHeaders("pseudo-header field after a regular one")
            pseudo += 1
        elif name not in _good_names:
            _check_name(name)
    if len(names) <= 32 and all(len(name) <= 64 for name in names):
        if len(_good_layouts) >= _KEPT_LAYOUTS:
            _good_layouts.clear()
        _good_layouts[names] = pseudo
    return pseudo


def _check_name(name: bytes) -> None:
    if _TOKEN.fullmatch(name) is None:
        raise MalformedHeaders("field name with characters that are not allowed")
    if name in _HOP_BY_HOP:
        raise MalformedHeaders(f"{name.decode()} has no meaning in HTTP/2")
    if len(name) <= 64:
        if len(_good_names) >= _KEPT_NAMES:
            _good_names.clear()
        _good_names.add(name)
