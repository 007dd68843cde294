"""gRPC's rules for headers and trailers, as its PROTOCOL-HTTP2 page states them.

Every function is pure: bytes and pairs in, values and pairs out. Where the page lets a receiver choose, we
read leniently (padding, percent signs that lead nowhere) and write strictly.

Names used here: *pairs* are raw header fields as on the wire; *metadata* is what users see, a `MultiDict`
of `str`, or of `bytes` under keys that end in `-bin`.

Sans-io; imports `hpack` from its own package, and grpclib for the classes we share with it.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from multidict import MultiDict

from meshnode.transport.hpack import HeaderBlock, Pair, encode

__all__ = [
    "ACCEPT_ENCODING",
    "OK_TRAILERS",
    "OK_TRAILERS_BLOCK",
    "RESPONSE_HEADERS",
    "RESPONSE_HEADERS_BLOCK",
    "MetadataError",
    "MetadataLike",
    "MetadataValue",
    "decode_bin",
    "decode_message",
    "encode_bin",
    "encode_message",
    "format_timeout",
    "is_grpc",
    "metadata_of",
    "pairs_of",
    "parse_status",
    "parse_timeout",
    "refusal",
    "result_of",
    "status_of_http",
    "status_of_reset",
    "trailers",
    "trailers_only",
]

MetadataValue = str | bytes
MetadataLike = Mapping[str, MetadataValue] | Iterable[tuple[str, MetadataValue]]


class MetadataError(ValueError):
    """Metadata that cannot be sent, or a `-bin` value that is not base64."""


# --- deadlines

_UNITS: Final = {
    ord("H"): 3600.0,
    ord("M"): 60.0,
    ord("S"): 1.0,
    ord("m"): 1e-3,
    ord("u"): 1e-6,
    ord("n"): 1e-9,
}
_MICROS: Final = (
    (10**3, b"m"),
    (10**6, b"S"),
    (60 * 10**6, b"M"),
    (3600 * 10**6, b"H"),
)
_MAX_DIGITS: Final = 8
_LONGEST: Final = 3600.0 * 10**_MAX_DIGITS


def parse_timeout(value: bytes) -> float:
    """`grpc-timeout` in seconds; raises ValueError."""
    digits = value[:-1]
    unit = _UNITS.get(value[-1]) if value else None
    if unit is None or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise ValueError(f"malformed grpc-timeout {value[:32]!r}")
    return int(digits) * unit


def format_timeout(seconds: float) -> bytes:
    """Seconds as `grpc-timeout`: rounded up, in the finest unit from microseconds that eight digits hold."""
    if seconds < 99.0:  # nearly all: one conversion, no loop
        return b"%du" % ceil(seconds * 1e6) if seconds > 0.0 else b"0u"
    micros = ceil(min(seconds, _LONGEST) * 1e6)
    for scale, unit in _MICROS:
        amount = -(-micros // scale)
        if amount < 10**_MAX_DIGITS:
            return b"%d%s" % (amount, unit)
    return b"99999999H"


# --- grpc-message

_MUST_ESCAPE: Final = re.compile(rb"[^ -$&-~]")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


def encode_message(message: str) -> bytes:
    """Percent-encode a status message: UTF-8, and everything but printable ASCII escaped."""
    raw = message.encode("utf-8", "replace")
    return _MUST_ESCAPE.sub(lambda match: b"%%%02X" % match[0][0], raw)


def decode_message(value: bytes) -> str:
    """Undo `encode_message`; what is not a valid escape or valid UTF-8 is kept as well as it can be."""
    if b"%" in value:
        value = _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), value)
    return value.decode("utf-8", "replace")


# --- metadata

_KEY: Final = re.compile(r"[0-9a-z_.\-]+")
_VALUE: Final = re.compile(r"[ -~]*")
_RESERVED: Final = frozenset({"te", "content-type", "user-agent", "content-length"})
# Of the names that begin with grpc- these belong to applications, or at least pass through them.
_GRPC_FREE: Final = frozenset({"grpc-trace-bin", "grpc-tags-bin", "grpc-previous-rpc-attempts"})
_KNOWN_KEYS: Final = 1024
_keys: dict[bytes, str] = {}  # header name -> metadata key, "" for reserved ones; bounded by _KNOWN_KEYS


def encode_bin(value: bytes) -> bytes:
    """Base64 without padding, as gRPC asks senders to write it."""
    return binascii.b2a_base64(value, newline=False).rstrip(b"=")


def decode_bin(value: bytes) -> bytes:
    """Base64 with or without padding; raises MetadataError."""
    try:
        return binascii.a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=True)
    except binascii.Error as error:
        raise MetadataError(f"malformed binary metadata: {error}") from None


def _is_reserved(key: str) -> bool:
    return key in _RESERVED or key[:1] == ":" or (key[:5] == "grpc-" and key not in _GRPC_FREE)


def _key_of(name: bytes) -> str:
    key = name.decode("latin-1")
    if _is_reserved(key):
        key = ""
    if len(name) <= 64:
        if len(_keys) >= _KNOWN_KEYS:
            _keys.clear()
        _keys[name] = key
    return key


def metadata_of(pairs: Iterable[Pair]) -> MultiDict[MetadataValue]:
    """The metadata among received pairs: no reserved headers, `-bin` decoded; raises MetadataError.

    A value that is not ASCII breaks the protocol but is shown as UTF-8 all the same.
    """
    items: list[tuple[str, MetadataValue]] = []
    for name, raw in pairs:
        key = _keys.get(name)
        if key is None:
            key = _key_of(name)
        if not key:
            continue
        if key[-4:] != "-bin":
            items.append((key, raw.decode("utf-8", "surrogateescape")))
        else:  # intermediaries may have joined several values
            items.extend((key, decode_bin(part.strip())) for part in raw.split(b","))
    return MultiDict(items)


def pairs_of(metadata: MetadataLike) -> list[Pair]:
    """Metadata as pairs to send; raises MetadataError for keys and values that gRPC does not allow."""
    items = metadata.items() if isinstance(metadata, Mapping) else metadata
    return [_pair_of(key, value) for key, value in items]


def _pair_of(key: str, value: MetadataValue) -> Pair:
    if _KEY.fullmatch(key) is None or _is_reserved(key):
        raise MetadataError(f"invalid metadata key {key!r}")
    if key[-4:] == "-bin":
        if not isinstance(value, bytes | bytearray | memoryview):
            raise MetadataError(f"metadata {key!r} needs bytes, not {type(value).__name__}")
        return key.encode("ascii"), encode_bin(value)
    if not isinstance(value, str):
        raise MetadataError(f"metadata {key!r} needs str, not {type(value).__name__}")
    if _VALUE.fullmatch(value) is None:
        raise MetadataError(f"metadata {key!r} has a value with characters other than printable ASCII")
    return key.encode("ascii"), value.encode("ascii")


# --- requests

_CONTENT_TYPE: Final = b"application/grpc"


def is_grpc(content_type: bytes | None) -> bool:
    """Whether a content-type says gRPC: bare, with a codec (`+proto`) or with parameters (`;`)."""
    if content_type == _CONTENT_TYPE:
        return True
    if content_type is None or content_type[:16].lower() != _CONTENT_TYPE:
        return False
    return content_type[16:17] in (b"", b"+", b";")


def refusal(block: HeaderBlock) -> tuple[list[Pair], bytes] | None:
    """The answer, headers and body, to a request that is HTTP/2 but not gRPC; None if it is gRPC.

    The body is for the person who points curl or a browser at the port.
    """
    method = block.get(b":method")
    if not is_grpc(block.get(b"content-type")):
        status, text = b"415", b"This port speaks gRPC: content-type must be application/grpc.\n"
    elif method != b"POST":
        status, text = b"405", b"This port speaks gRPC: the method must be POST.\n"
    else:
        return None
    body = b"" if method == b"HEAD" else text
    return [(b":status", status), (b"content-type", b"text/plain; charset=utf-8")], body


# --- statuses

_STATUSES: Final = {b"%d" % status.value: status for status in Status}
_HTTP: Final = {
    b"400": Status.INTERNAL,
    b"401": Status.UNAUTHENTICATED,
    b"403": Status.PERMISSION_DENIED,
    b"404": Status.UNIMPLEMENTED,
    b"429": Status.UNAVAILABLE,
    b"502": Status.UNAVAILABLE,
    b"503": Status.UNAVAILABLE,
    b"504": Status.UNAVAILABLE,
}
_RESETS: Final = {
    0x0: Status.INTERNAL,  # NO_ERROR
    0x1: Status.INTERNAL,  # PROTOCOL_ERROR
    0x2: Status.INTERNAL,  # INTERNAL_ERROR
    0x3: Status.INTERNAL,  # FLOW_CONTROL_ERROR
    0x4: Status.INTERNAL,  # SETTINGS_TIMEOUT
    0x6: Status.INTERNAL,  # FRAME_SIZE_ERROR
    0x7: Status.UNAVAILABLE,  # REFUSED_STREAM: nothing was processed
    0x8: Status.CANCELLED,  # CANCEL
    0x9: Status.INTERNAL,  # COMPRESSION_ERROR
    0xA: Status.INTERNAL,  # CONNECT_ERROR
    0xB: Status.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    0xC: Status.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}


def parse_status(value: bytes | None) -> Status:
    """`grpc-status`; missing, malformed and unheard-of ones are UNKNOWN."""
    return _STATUSES.get(value or b"", Status.UNKNOWN)


def status_of_http(value: bytes | None) -> Status:
    """The status a client reports for a response that is not gRPC's, by its `:status`."""
    return _HTTP.get(value or b"", Status.UNKNOWN)


def status_of_reset(code: int) -> Status:
    """The status a client reports when the server resets the stream with this HTTP/2 error code."""
    return _RESETS.get(code, Status.UNKNOWN)


def result_of(block: HeaderBlock) -> GRPCError | None:
    """How a call ended, from its trailers or trailers-only headers; None is OK.

    `details` of the error are the raw bytes of `grpc-status-details-bin`, or None.
    """
    raw = block.get(b"grpc-status")
    if raw == b"0":
        return None
    if raw is None:
        return _not_grpc(block)
    message = block.get(b"grpc-message")
    details = block.get(b"grpc-status-details-bin")
    try:
        decoded = None if details is None else decode_bin(details)
    except MetadataError:
        decoded = None  # a status without its details is worth more than an error about them
    return GRPCError(parse_status(raw), None if message is None else decode_message(message), decoded)


def _not_grpc(block: HeaderBlock) -> GRPCError:
    http = block.get(b":status")
    if http is None or http == b"200":
        return GRPCError(Status.UNKNOWN, "the server ended the call without grpc-status")
    return GRPCError(status_of_http(http), f"unexpected HTTP status {http.decode('latin-1')}")


# --- answers

ACCEPT_ENCODING: Final[Pair] = (b"grpc-accept-encoding", b"identity,deflate,gzip")
RESPONSE_HEADERS: Final[tuple[Pair, ...]] = ((b":status", b"200"), (b"content-type", _CONTENT_TYPE))
OK_TRAILERS: Final[tuple[Pair, ...]] = ((b"grpc-status", b"0"),)
RESPONSE_HEADERS_BLOCK: Final = encode(RESPONSE_HEADERS)
OK_TRAILERS_BLOCK: Final = encode(OK_TRAILERS)


def trailers(
    status: Status,
    message: str | None = None,
    details: bytes | None = None,
    metadata: Sequence[Pair] = (),
) -> list[Pair]:
    """The pairs that end a call; `metadata` are pairs already, from `pairs_of`."""
    pairs = [(b"grpc-status", b"%d" % status.value)]
    if message:
        pairs.append((b"grpc-message", encode_message(message)))
    if details is not None:
        pairs.append((b"grpc-status-details-bin", encode_bin(details)))
    pairs.extend(metadata)
    return pairs


def trailers_only(
    status: Status,
    message: str | None = None,
    details: bytes | None = None,
    metadata: Sequence[Pair] = (),
) -> list[Pair]:
    """The whole answer of a call that fails before it sent anything: headers that end the stream."""
    return [*RESPONSE_HEADERS, *trailers(status, message, details, metadata)]
