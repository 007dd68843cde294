"""A broker's message as an event, and the event as the messages that an application gets. Pure.

Sources: CloudEvents 1.0.2 JSON format (structured), its binary mode with Dapr's `ce_` names in the message's
metadata, and Dapr's raw payloads.
"""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, final

from attrs import frozen

from meshnode.blocks.pubsub.contenttypes import is_binary, is_plain_json
from meshnode.blocks.pubsub.envelope import DEFAULT_TYPE
from meshnode.blocks.pubsub.jsontext import Member, split_members, whole
from meshnode.interfaces import Message
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Struct

__all__ = ["Event", "bulk_entry", "event_of", "topic_event"]

_BINARY_MODE = "ce_"
_TRACE = ("traceid", "traceparent", "tracestate")
_OWN_FIELDS = frozenset({"id", "source", "type", "specversion", "datacontenttype", "data", "data_base64"})


@final
@frozen
class Event:
    """A CloudEvent: its attributes as JSON values, without the data; `data` as the application gets it.

    `parsed` is the data as a value where it is JSON, for routing rules; else its text.
    """

    attributes: Mapping[str, Any]
    data: bytes
    parsed: Any = None

    def text(self, name: str) -> str:
        value = self.attributes.get(name)
        return value if isinstance(value, str) else ""

    def expired(self, now: float) -> bool:
        """Whether the publisher's time to live is over; an expiration that is no time is none."""
        try:
            moment = datetime.fromisoformat(self.text("expiration"))
        except ValueError:
            return False
        return moment.tzinfo is not None and moment.timestamp() < now

    def for_rules(self) -> dict[str, Any]:
        """What routing rules see as `event`."""
        return {**self.attributes, "data": self.parsed}


def event_of(message: Message, pubsub: str, topic: str, *, raw: bool, new_id: Callable[[], str]) -> Event:
    """The event that a message carries. Raises `ValueError` where it carries none.

    `new_id` serves where the message has no id of its own.
    """
    content_type = message.content_type or message.metadata.get("content-type", "")
    if raw:
        return _raw(message, pubsub, topic, new_id())
    if is_binary(content_type):
        return _binary_mode(message, content_type, new_id())
    text = message.data.decode("utf-8")
    members = split_members(text)
    if "\\u" in text:
        members = {name: Member(whole(one.value), one.text) for name, one in members.items()}
    attributes = {
        name: member.value for name, member in members.items() if name not in ("data", "data_base64")
    }
    _add_trace(attributes, message.metadata)
    encoded = members.get("data_base64")
    if encoded is not None and encoded.value is not None:
        data = _from_base64(encoded.value)
        return Event(attributes, data, data.decode("utf-8", "replace"))
    member = members.get("data")
    if member is None or member.value is None:
        return Event(attributes, b"")
    kind = attributes.get("datacontenttype")
    return Event(
        attributes, _data(member.value, member.text, kind if isinstance(kind, str) else ""), member.value
    )


def _data(value: Any, text: str, content_type: str) -> bytes:
    """Text as it is; JSON as its text.

    A string under a JSON type is JSON text of a string, except under a `+json` type, where daprd puts the
    whole document into a string.
    """
    if not isinstance(value, str):
        return text.encode()
    if not content_type or is_plain_json(content_type):
        return text.encode()
    return value.encode()


def _raw(message: Message, pubsub: str, topic: str, fresh_id: str) -> Event:
    attributes: dict[str, Any] = {
        "id": fresh_id,
        "specversion": "1.0",
        "datacontenttype": "application/octet-stream",
        "source": "Dapr",
        "type": DEFAULT_TYPE,
        "topic": topic,
        "pubsubname": pubsub,
    }
    _add_trace(attributes, message.metadata)
    return Event(attributes, message.data, message.data.decode("utf-8", "replace"))


def _binary_mode(message: Message, content_type: str, fresh_id: str) -> Event:
    attributes: dict[str, Any] = {
        name.lower().removeprefix(_BINARY_MODE): value
        for name, value in message.metadata.items()
        if name.lower().startswith(_BINARY_MODE)
    }
    attributes["datacontenttype"] = content_type
    attributes.setdefault("id", fresh_id)
    _add_trace(attributes, message.metadata)
    return Event(attributes, message.data, message.data.decode("utf-8", "replace"))


def _add_trace(attributes: dict[str, Any], metadata: Mapping[str, str]) -> None:
    """The broker's own metadata may carry the trace where the event does not."""
    for name in _TRACE:
        if name not in attributes and name in metadata:
            attributes[name] = metadata[name]
            if name == "traceparent":
                attributes["traceid"] = metadata[name]


def _from_base64(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("data_base64 is no string")  # noqa: TRY004 - the text is wrong, not a type
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"data_base64 is not base64: {error}") from error


def topic_event(event: Event, pubsub: str, topic: str, path: str) -> runtime.TopicEventRequest:
    """As AppCallback.OnTopicEvent and the streaming subscription take it."""
    return runtime.TopicEventRequest(
        id=event.text("id"),
        source=event.text("source"),
        type=event.text("type"),
        spec_version=event.text("specversion"),
        data_content_type=event.text("datacontenttype"),
        data=event.data,
        topic=topic,
        pubsub_name=pubsub,
        path=path,
        extensions=_extensions(event),
    )


def bulk_entry(
    event: Event, entry_id: str, message: Message, *, raw: bool
) -> runtime.TopicEventBulkRequestEntry:
    """One entry of AppCallback.OnBulkTopicEvent: raw payloads as bytes, everything else as the event."""
    metadata = dict(message.metadata)
    if raw:
        return runtime.TopicEventBulkRequestEntry(
            entry_id=entry_id,
            bytes=event.data,
            content_type="application/octet-stream",
            metadata=metadata,
        )
    cloud_event = runtime.TopicEventCeRequest(
        id=event.text("id"),
        source=event.text("source"),
        type=event.text("type"),
        spec_version=event.text("specversion"),
        data_content_type=event.text("datacontenttype"),
        data=event.data,
        extensions=_extensions(event),
    )
    return runtime.TopicEventBulkRequestEntry(
        entry_id=entry_id,
        cloud_event=cloud_event,
        content_type="application/cloudevents+json",
        metadata=metadata,
    )


def _extensions(event: Event) -> Struct:
    return Struct.from_dict(
        {name: _carried(value) for name, value in event.attributes.items() if name not in _OWN_FIELDS}
    )


def _carried(value: Any) -> Any:
    """The value as protobuf can carry it: an integer beyond all floating-point numbers as its digits."""
    if isinstance(value, str):  # nearly always
        return value
    if isinstance(value, dict):
        return {name: _carried(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_carried(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= sys.float_info.max else str(value)
    return value
