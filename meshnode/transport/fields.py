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
from typing import Final, NamedTuple

from meshnode.transport.hpack import HeaderBlock

__all__ = ["MalformedHeaders", "check_request", "check_response", "check_trailers", "content_length"]

Names = tuple[bytes, ...]

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_REQUEST: Final = frozenset({b":method", b":scheme", b":path"})
_REQUEST_ALL: Final = _REQUEST | {b":authority"}
_KEPT_NAMES: Final = 1024
_KEPT_LAYOUTS: Final = 512
_layouts: dict[Names, Layout] = {}  # names found correct before, in their order; bounded by _KEPT_LAYOUTS
_good_names: set[bytes] = set()  # regular names found correct before; bounded by _KEPT_NAMES


class Layout(NamedTuple):
    """What the names of a section, in their order, say about it."""

    pseudo: int  # how many pseudo-header fields lead it
    request: bool  # whether these are a request's
    te: bool  # whether there is one to look at


class MalformedHeaders(ValueError):
    """A header section that HTTP/2 calls malformed."""


def check_request(block: HeaderBlock) -> None:
    """Raise MalformedHeaders unless the block can open a request."""
    if block.verdict is check_request:
        return
    if not _check_section(block).request:
        raise MalformedHeaders("request with missing, repeated or unknown pseudo-header fields")
    if not block.map[b":path"]:
        raise MalformedHeaders("request with an empty :path")
    block.verdict = check_request


def check_response(block: HeaderBlock) -> None:
    """Raise MalformedHeaders unless the block can open a response."""
    if block.verdict is check_response:
        return
    pseudo = _check_section(block).pseudo
    status = block.get(b":status", b"") or b""
    if pseudo != 1 or len(status) != 3 or not status.isdigit():
        raise MalformedHeaders("response without exactly one :status")
    block.verdict = check_response


def check_trailers(block: HeaderBlock) -> None:
    """Raise MalformedHeaders unless the block can end a request or response."""
    if block.verdict is check_trailers:
        return
    if _check_section(block).pseudo:
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


def _check_section(block: HeaderBlock) -> Layout:
    """Check what every section must keep to."""
    names: Names
    names, values = zip(*block, strict=True) if block else ((), ())
    layout = _layouts.get(names) or _check_layout(names)
    joined = b"".join(values)
    if len(joined.translate(None, b"\0\r\n")) != len(joined):
        raise MalformedHeaders("field value with NUL, CR or LF")
    if layout.te and block.get(b"te") != b"trailers":
        raise MalformedHeaders("te may only say trailers")
    return layout


def _check_layout(names: Names) -> Layout:
    """Check the names. Peers repeat theirs in the same order, so the verdict is kept: it saves 2 µs each."""
    pseudo = 0
    for position, name in enumerate(names):
        if name[:1] == b":":
            if position != pseudo:
                raise MalformedHeaders("pseudo-header field after a regular one")
            pseudo += 1
        elif name not in _good_names:
            _check_name(name)
    found = set(names[:pseudo])
    request = len(found) == pseudo and _REQUEST <= found <= _REQUEST_ALL
    layout = Layout(pseudo, request, b"te" in names)
    if len(names) <= 32 and all(len(name) <= 64 for name in names):
        if len(_layouts) >= _KEPT_LAYOUTS:
            _layouts.clear()
        _layouts[names] = layout
    return layout


def _check_name(name: bytes) -> None:
    if _TOKEN.fullmatch(name) is None:
        raise MalformedHeaders("field name with characters that are not allowed")
    if name in _HOP_BY_HOP:
        raise MalformedHeaders(f"{name.decode()} has no meaning in HTTP/2")
    if len(name) <= 64:
        if len(_good_names) >= _KEPT_NAMES:
            _good_names.clear()
        _good_names.add(name)
