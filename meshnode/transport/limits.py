"""Every limit of the transport, with its default, in one place.

A limit bounds what a peer can make us hold or do. Rates are token buckets: `per second` refills, the burst is
what may come at once. What happens when one is exceeded is said with each.

Imports nothing from meshnode.
"""

from __future__ import annotations

from attrs import field, frozen, validators

__all__ = ["DEFAULT_LIMITS", "KeepAlive", "Limits"]

_at_least_one = validators.ge(1)
_positive = validators.gt(0.0)


@frozen(kw_only=True)
class Limits:
    """What one connection may cost us."""

    message_size: int = field(default=4 * 1024 * 1024, validator=validators.ge(0))
    """Bytes of one received gRPC message, before and after decompression: RESOURCE_EXHAUSTED."""

    concurrent_streams: int = field(default=1024, validator=_at_least_one)
    """Streams a client may have open at once: REFUSED_STREAM."""

    header_list_size: int = field(default=64 * 1024, validator=_at_least_one)
    """Decoded headers, counted as SETTINGS_MAX_HEADER_LIST_SIZE does: the stream is reset."""

    header_block_size: int = field(default=128 * 1024, validator=_at_least_one)
    """Encoded headers, HEADERS and CONTINUATION together: ENHANCE_YOUR_CALM."""

    header_table_size: int = field(default=4096, validator=validators.ge(0))
    """What the peer's HPACK encoder may keep in our decoder."""

    continuation_frames: int = field(default=16, validator=_at_least_one)
    """CONTINUATION frames of one header block: ENHANCE_YOUR_CALM."""

    frame_size: int = field(
        default=16_384, validator=validators.and_(validators.ge(16_384), validators.lt(1 << 24))
    )
    """Payload of a frame, announced as SETTINGS_MAX_FRAME_SIZE: FRAME_SIZE_ERROR."""

    stream_window: int = field(default=256 * 1024, validator=validators.in_(range(1, 1 << 31)))
    """Bytes a stream may have received that nobody took yet; a message being waited for may exceed it."""

    connection_window: int = field(default=16 * 1024 * 1024, validator=validators.in_(range(65_535, 1 << 31)))
    """Bytes all streams of a connection together may have received that nobody took yet."""

    resets_per_second: float = field(default=100.0, validator=_positive)
    """Streams that end in a reset, by the peer or by its fault ("rapid reset"): ENHANCE_YOUR_CALM."""

    resets_burst: int = field(default=1000, validator=_at_least_one)

    pings_per_second: float = field(default=1.0, validator=_positive)
    """PINGs with no request or data in between: ENHANCE_YOUR_CALM, "too_many_pings"."""

    pings_burst: int = field(default=60, validator=_at_least_one)

    settings_per_second: float = field(default=5.0, validator=_positive)
    """SETTINGS frames: ENHANCE_YOUR_CALM."""

    settings_burst: int = field(default=100, validator=_at_least_one)

    empty_data_per_second: float = field(default=100.0, validator=_positive)
    """DATA frames that carry nothing and end nothing: ENHANCE_YOUR_CALM."""

    empty_data_burst: int = field(default=1000, validator=_at_least_one)

    odd_frames_per_second: float = field(default=1000.0, validator=_positive)
    """PRIORITY, unknown and late frames, which are read only to be ignored: ENHANCE_YOUR_CALM."""

    odd_frames_burst: int = field(default=10_000, validator=_at_least_one)

    unsent_replies: int = field(default=1000, validator=_at_least_one)
    """Answers to control frames (acknowledgements, resets) that the peer does not read: the connection
    ends.
    """

    unsent_bytes: int = field(default=1024 * 1024, validator=_at_least_one)
    """Bytes waiting for the socket before whoever sends has to wait too."""

    waiting_requests: int = field(default=10_000, validator=_at_least_one)
    """Calls of a channel that wait for a connection or for one of the peer's stream slots:
    RESOURCE_EXHAUSTED.
    """

    handshake_seconds: float = field(default=10.0, validator=_positive)
    """TLS handshake, preface and first SETTINGS of a connection: it is closed."""

    header_seconds: float = field(default=10.0, validator=_positive)
    """From the first byte of a frame or header block to its last: the connection is closed."""

    farewell_seconds: float = field(default=1.0, validator=_positive)
    """For a client to acknowledge that the server drains; after that no more requests are awaited from it."""


DEFAULT_LIMITS = Limits()


@frozen(kw_only=True)
class KeepAlive:
    """PINGs that notice a peer that is gone without saying so."""

    interval: float = field(default=60.0, validator=_positive)
    """Seconds without a byte from the peer before a PING is sent."""

    patience: float = field(default=20.0, validator=_positive)
    """Seconds the peer may take to answer it; after that the connection is lost."""

    when_idle: bool = False
    """Also while no call is open."""
