"""Metadata into a message's properties, and a message's properties and headers into metadata. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

__all__ = ["binding_properties", "event_metadata", "message_metadata", "priority_of", "pubsub_properties"]

_PREFIX = "metadata."


def _given(metadata: Mapping[str, str], name: str) -> str:
    """A value by its name, case aside."""
    if metadata.get(name):
        return metadata[name]
    return next((value for key, value in metadata.items() if value and key.lower() == name.lower()), "")


def priority_of(metadata: Mapping[str, str]) -> int | None:
    """Raises `ValueError` where it is no number."""
    text = _given(metadata, "priority").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"priority: {text!r} is no whole number")
    return min(int(text), 255)


def _expiration(ttl: float | None) -> str | None:
    """The broker's unit is the millisecond; what expires is not to live for ever by rounding."""
    return None if ttl is None else str(max(0, round(ttl * 1000)))


def pubsub_properties(
    metadata: Mapping[str, str], *, content_type: str, ttl: float | None, delivery_mode: int
) -> Basic.Properties:
    """daprd ignores a priority that is none, and so do we."""
    try:
        priority = priority_of(metadata)
    except ValueError:
        priority = None
    return Basic.Properties(
        content_type=_given(metadata, "contentType") or content_type or "text/plain",
        # The protocol knows 1 and 2; daprd's 0 is a 1.
        delivery_mode=delivery_mode or 1,
        priority=priority,
        expiration=_expiration(ttl),
        message_id=_given(metadata, "messageId") or None,
        correlation_id=_given(metadata, "correlationId") or None,
        message_type=_given(metadata, "type") or None,
    )


def binding_properties(
    metadata: Mapping[str, str], *, content_type: str, ttl: float | None, message_id: str
) -> Basic.Properties:
    """All of the metadata becomes headers. Raises `ValueError` for a priority that is none."""
    return Basic.Properties(
        content_type=_given(metadata, "contentType") or content_type,
        delivery_mode=2,
        priority=priority_of(metadata),
        expiration=_expiration(ttl),
        message_id=message_id,
        headers=dict(metadata),
    )


def message_metadata(message: DeliveredMessage) -> dict[str, str]:
    """For a pub/sub message, with daprd's names."""
    properties = message.header.properties
    named = {
        "messageid": properties.message_id,
        "correlationid": properties.correlation_id,
        "type": properties.message_type,
        "contenttype": properties.content_type,
    }
    metadata = {_PREFIX + name: str(value) for name, value in named.items() if value}
    for name, value in (properties.headers or {}).items():
        if value is not None:
            metadata[_PREFIX + name] = _text(value)
    return metadata


def event_metadata(message: DeliveredMessage) -> dict[str, str]:
    """For a binding's event: the headers that are text, escaped as daprd does, for whom they are a query."""
    headers = message.header.properties.headers or {}
    return {quote_plus(name): quote_plus(value) for name, value in headers.items() if isinstance(value, str)}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    return str(value)
