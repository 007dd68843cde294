"""The CloudEvents 1.0 envelope around published data, as Dapr makes it.

Attributes are kept as JSON text, so what a publisher wrote is carried over to the letter. Pure: ids and the
time come from the caller. Sources: CloudEvents 1.0.2 and its JSON format; Dapr's names for the extensions
(`topic`, `pubsubname`, `traceid`, `traceparent`, `tracestate`, `expiration`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from meshnode.blocks.pubsub.contenttypes import is_binary, is_cloud_event, is_json, is_plain_json
from meshnode.blocks.pubsub.jsontext import dump, is_json_text, join_members, split_members

__all__ = ["DEFAULT_TYPE", "Origin", "expiration_text", "time_text", "wrap"]

DEFAULT_TYPE = "com.dapr.event.sent"
_DEFAULT_CONTENT_TYPE = "text/plain"
_SPEC_VERSION = "1.0"
_OVERRIDE = "cloudevent."
_OVERRIDES = {
    "id": "id",
    "source": "source",
    "type": "type",
    "subject": "subject",
    "traceid": "traceid",
    "traceparent": "traceparent",
    "tracestate": "tracestate",
}


@frozen
class Origin:
    """What an envelope says of where it comes from. `source` is the app id, `id` a fresh one, `time` as
    `time_text` writes it.
    """

    id: str
    source: str
    topic: str
    pubsub: str
    traceparent: str
    tracestate: str
    time: str = ""


def wrap(
    data: bytes,
    content_type: str,
    metadata: Mapping[str, str],
    origin: Origin,
    *,
    expiration: str = "",
    extensions: Mapping[str, Any] | None = None,
    enclosed: bool = False,
) -> bytes:
    """The event as it goes to the broker; `extensions` are further attributes, JSON values. `enclosed` puts
    a CloudEvent into another one. Raises `ValueError` where `data` claims to be a CloudEvent and is none.
    """
    attributes = _passed_through(data, origin) if is_cloud_event(content_type) else None
    if attributes is None or enclosed:
        attributes = _wrapped(data, content_type, metadata, origin)
    if expiration:
        attributes["expiration"] = dump(expiration)
    for name, value in (extensions or {}).items():
        attributes[name] = dump(value)
    return join_members(attributes).encode()


def expiration_text(moment: float) -> str:
    """RFC 3339 in UTC, whole seconds, as Dapr writes it; rounded up so that nothing expires early."""
    return time_text(int(moment) + (moment > int(moment)))


def time_text(moment: float) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _wrapped(data: bytes, content_type: str, metadata: Mapping[str, str], origin: Origin) -> dict[str, str]:
    content_type = content_type or _DEFAULT_CONTENT_TYPE
    plain = {
        "id": origin.id,
        "source": origin.source,
        "specversion": _SPEC_VERSION,
        "type": DEFAULT_TYPE,
        "datacontenttype": content_type,
        "topic": origin.topic,
        "pubsubname": origin.pubsub,
        "traceid": origin.traceparent,
        "traceparent": origin.traceparent,
        "tracestate": origin.tracestate,
    }
    if origin.time:
        plain["time"] = origin.time
    plain |= _overrides(metadata)
    attributes = {name: dump(value) for name, value in plain.items()}
    name, text = _data_member(data, content_type)
    attributes[name] = text
    return attributes


def _overrides(metadata: Mapping[str, str]) -> dict[str, str]:
    """`cloudevent.*` metadata, names in any case. A traceparent given is the trace id too, as in Dapr."""
    found: dict[str, str] = {}
    for name, value in metadata.items():
        folded = name.lower()
        attribute = _OVERRIDES.get(folded.removeprefix(_OVERRIDE)) if folded.startswith(_OVERRIDE) else None
        if attribute is not None and value:
            found[attribute] = value
    if "traceparent" in found:
        found["traceid"] = found["traceparent"]
    elif "traceid" in found:
        found["traceparent"] = found["traceid"]
    return found


def _data_member(data: bytes, content_type: str) -> tuple[str, str]:
    """`data` with JSON or text, or `data_base64`.

    Text that is not UTF-8 goes as base64: in a JSON string some of its bytes would be lost.
    """
    if not is_binary(content_type):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        if text is not None:
            as_json = is_json(content_type) and is_json_text(text)
            if as_json and not is_plain_json(content_type) and text.lstrip()[:1] == '"':
                as_json = (
                    False  # a `+json` document in a string, as daprd writes them all: it is read as such
                )
            return "data", text if as_json else dump(text)
    return "data_base64", dump(base64.b64encode(data).decode())


def _passed_through(data: bytes, origin: Origin) -> dict[str, str]:
    """The publisher's own event with the node's extensions, and what the specification requires where it is
    missing.
    """
    attributes = {name: member.text for name, member in split_members(data.decode("utf-8")).items()}
    attributes |= {
        "topic": dump(origin.topic),
        "pubsubname": dump(origin.pubsub),
        "traceid": dump(origin.traceparent),
        "traceparent": dump(origin.traceparent),
        "tracestate": dump(origin.tracestate),
    }
    defaults = {
        "id": origin.id,
        "source": origin.source,
        "type": DEFAULT_TYPE,
        "specversion": _SPEC_VERSION,
    }
    if origin.time:
        defaults["time"] = origin.time
    for name, value in defaults.items():
        if attributes.get(name, "null") == "null":
            attributes[name] = dump(value)
    return attributes
